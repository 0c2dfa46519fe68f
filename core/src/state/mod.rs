//! The state directory beside a database.
