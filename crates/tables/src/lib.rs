//! State that one worker owns, and the vocabulary by which control changes it.
//!
//! Nothing here is shared: a worker owns its tables outright, control reaches them only by
//! [`update::Update`], and they answer with [`event::Event`].

pub mod event;
pub mod update;
