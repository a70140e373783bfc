//! One binary, one file a subject.

mod store;
