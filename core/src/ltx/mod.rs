//! The LTX file format, version 3.
