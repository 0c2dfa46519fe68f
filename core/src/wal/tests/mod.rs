mod bytes;
mod wakes;
