//! Bodies of answers: event streams that begin early, comments that keep them alive, and what a body holds until its end.

pub(crate) mod answer;
pub(crate) mod early;
pub(crate) mod held;
pub(crate) mod keepalive;
