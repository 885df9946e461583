//! A queue's hold on its running port, so that the port neither stops nor goes while a worker may poll it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// The queue handles of a port that exist.
#[derive(Debug, Default)]
pub(crate) struct Leases(AtomicUsize);

impl Leases {
    /// How many there are.
    pub(crate) fn out(&self) -> usize {
        // Acquire: what the queues' owners did happens before the port is stopped.
        self.0.load(Ordering::Acquire)
    }

    /// Refuses while there are some.
    pub(crate) fn ensure_none(&self, port: &str) -> Result<()> {
        match self.out() {
            0 => Ok(()),
            queues => Err(Error::QueuesOut { port: port.into(), queues }),
        }
    }
}

/// What has queues to lease.
pub(crate) trait Lessor {
    /// Its leases.
    fn leases(&self) -> &Leases;
    /// The port's name.
    fn port_name(&self) -> &str;
}

/// One queue's hold.
pub(crate) struct Lease<T: Lessor>(Arc<T>);

impl<T: Lessor> Lease<T> {
    pub(crate) fn new(of: &Arc<T>) -> Self {
        of.leases().0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(of))
    }

    pub(crate) fn name(&self) -> &str {
        self.0.port_name()
    }
}

impl<T: Lessor> Drop for Lease<T> {
    fn drop(&mut self) {
        // Release: pairs with the load in `out`.
        self.0.leases().0.fetch_sub(1, Ordering::Release);
    }
}

impl<T: Lessor> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
