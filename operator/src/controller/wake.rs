//! Who has to be looked at again: each resource at most once, however often it is named.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use tokio::sync::Notify;

use super::shelf::Group;

/// Resources that wait to be looked at. As many as there are resources, at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake {
    waiting: Arc<Mutex<BTreeSet<Group>>>,
    more: Arc<Notify>,
}

impl Wake {
    /// Asks for a look at `group`.
    pub(crate) fn add(&self, group: Group) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(group);
        drop(waiting);
        self.more.notify_one();
    }

    /// Those that are asked for, for ever. For one reader.
    pub(crate) fn stream(self) -> impl Stream<Item = Group> + Send + 'static {
        futures_util::stream::unfold(self, |wake| async move {
            loop {
                let next = {
                    let waiting = wake.waiting.lock();
                    waiting.unwrap_or_else(PoisonError::into_inner).pop_first()
                };
                if let Some(next) = next {
                    return Some((next, wake));
                }
                wake.more.notified().await;
            }
        })
    }
}
