//! What writes under way have taken and not stored yet: an address or a port is free when neither a stored object nor
//! one of these holds it. No lock outlives a function; what is reserved is given back when its write ends, well or badly.
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Clone, Default)]
pub(crate) struct Reservations(Arc<Mutex<HashSet<String>>>);

impl Reservations {
    /// Held while one caller looks for what is free; nothing else can be taken meanwhile.
    pub(super) fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what `lock` gave.
    pub(super) fn take(&self, held: &mut HashSet<String>, names: Vec<String>) -> Reserved {
        held.extend(names.iter().cloned());
        Reserved { all: self.clone(), names }
    }
}

pub(super) struct Reserved {
    all: Reservations,
    names: Vec<String>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut held = self.all.lock();
        for name in &self.names {
            held.remove(name);
        }
    }
}
