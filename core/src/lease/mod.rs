//! Single writer: who may append to a stream.
