//! What the operator has seen of objects that it does not own whole: a few facts of each, grouped by the resource they belong to.
//!
//! A watch that starts anew lists everything first; what is not in that list is gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tracing::warn;

/// Namespace and name of the `WalrustBackup` or `WalrustRestore` that something belongs to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Group {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Group {
    /// That of `object`, by its label `label`.
    pub(crate) fn of<K: Resource>(object: &K, label: &str) -> Option<Self> {
        Some(Self {
            namespace: object.namespace()?,
            name: object.labels().get(label)?.clone(),
        })
    }
}

/// Namespace and name of the object itself.
type Key = (String, String);

/// Facts of kind `F`, at most one for each object.
#[derive(Debug)]
pub(crate) struct Shelf<F> {
    state: Mutex<State<F>>,
}

#[derive(Debug)]
struct State<F> {
    groups: HashMap<Group, BTreeMap<String, Arc<F>>>,
    objects: HashMap<Key, Group>,
    /// Objects of the list that is being read.
    listed: Option<HashSet<Key>>,
    /// Whether a list was read to its end.
    complete: bool,
}

impl<F> Default for Shelf<F> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                groups: HashMap::new(),
                objects: HashMap::new(),
                listed: None,
                complete: false,
            }),
        }
    }
}

impl<F> Shelf<F> {
    /// A holder of the lock that panicked leaves a map that is whole.
    fn lock(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything that was there at the start has been seen.
    pub(crate) fn is_complete(&self) -> bool {
        self.lock().complete
    }

    /// The facts of `group`, by name.
    pub(crate) fn of(&self, group: &Group) -> Vec<Arc<F>> {
        let state = self.lock();
        let facts = state
            .groups
            .get(group)
            .into_iter()
            .flat_map(BTreeMap::values);
        facts.cloned().collect()
    }

    /// All facts with their groups.
    pub(crate) fn all(&self) -> Vec<(Group, Arc<F>)> {
        let state = self.lock();
        let groups = state.groups.iter();
        groups
            .flat_map(|(group, facts)| facts.values().map(|fact| (group.clone(), Arc::clone(fact))))
            .collect()
    }

    /// Takes in what a watch says, and gives the groups that it touches.
    pub(crate) fn take<K: Resource>(
        &self,
        event: watcher::Event<K>,
        digest: impl Fn(&K) -> Option<(Group, F)>,
    ) -> Vec<Group> {
        let mut state = self.lock();
        match event {
            watcher::Event::Init => {
                state.listed = Some(HashSet::new());
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                let key = key(&object);
                if let Some(listed) = &mut state.listed {
                    listed.insert(key.clone());
                }
                state.put(key, digest(&object))
            }
            watcher::Event::InitDone => {
                let listed = state.listed.take().unwrap_or_default();
                state.complete = true;
                let gone: Vec<Key> = state.objects.keys().cloned().collect();
                let gone = gone.into_iter().filter(|key| !listed.contains(key));
                gone.filter_map(|key| state.remove(&key)).collect()
            }
            watcher::Event::Apply(object) => state.put(key(&object), digest(&object)),
            watcher::Event::Delete(object) => state.remove(&key(&object)).into_iter().collect(),
        }
    }
}

impl<F> State<F> {
    fn put(&mut self, key: Key, fact: Option<(Group, F)>) -> Vec<Group> {
        let former = self.remove(&key);
        let Some((group, fact)) = fact else {
            return former.into_iter().collect();
        };
        let facts = self.groups.entry(group.clone()).or_default();
        facts.insert(key.1.clone(), Arc::new(fact));
        self.objects.insert(key, group.clone());
        let moved = former.filter(|former| *former != group);
        moved.into_iter().chain([group]).collect()
    }

    fn remove(&mut self, key: &Key) -> Option<Group> {
        let group = self.objects.remove(key)?;
        if let Some(facts) = self.groups.get_mut(&group) {
            facts.remove(&key.1);
            if facts.is_empty() {
                self.groups.remove(&group);
            }
        }
        Some(group)
    }
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Keeps `shelf` up to date with `api`, and tells `wake` what changed, for ever.
pub(crate) async fn follow<K, F>(
    api: Api<K>,
    selector: &str,
    shelf: Arc<Shelf<F>>,
    digest: fn(&K) -> Option<(Group, F)>,
    wake: impl Fn(Group),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let config = watcher::Config::default().labels(selector).any_semantic();
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => shelf.take(event, digest).into_iter().for_each(&wake),
            Err(error) => warn!(kind = %K::kind(&()), %error, "watch"),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::Event;

    use super::*;

    fn object(name: &str, backup: Option<&str>) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("apps".to_owned());
        object.metadata.name = Some(name.to_owned());
        let labels = backup.map(|backup| ("b".to_owned(), backup.to_owned()));
        object.metadata.labels = Some(labels.into_iter().collect());
        object
    }

    fn group(name: &str) -> Group {
        Group {
            namespace: "apps".to_owned(),
            name: name.to_owned(),
        }
    }

    fn digest(object: &ConfigMap) -> Option<(Group, String)> {
        Some((Group::of(object, "b")?, object.name_any()))
    }

    fn names(shelf: &Shelf<String>, of: &str) -> Vec<String> {
        let facts = shelf.of(&group(of));
        facts.iter().map(|name| String::clone(name)).collect()
    }

    #[test]
    fn a_new_list_forgets_what_is_not_in_it() {
        let shelf = Shelf::default();
        let take = |event| shelf.take(event, digest);
        take(Event::Init);
        assert_eq!(take(Event::InitApply(object("a", Some("x")))), [group("x")]);
        take(Event::InitApply(object("b", Some("x"))));
        assert!(!shelf.is_complete());
        assert_eq!(take(Event::InitDone), []);
        assert!(shelf.is_complete());
        take(Event::Apply(object("c", Some("y"))));
        take(Event::Init);
        take(Event::InitApply(object("b", Some("x"))));
        // Until the list is whole, what was known still counts.
        assert_eq!(names(&shelf, "x"), ["a", "b"]);
        let mut gone = take(Event::InitDone);
        gone.sort();
        assert_eq!(gone, [group("x"), group("y")]);
        assert_eq!(names(&shelf, "x"), ["b"]);
        assert_eq!(shelf.all().len(), 1);
    }

    #[test]
    fn an_object_that_changes_its_group_wakes_both() {
        let shelf = Shelf::default();
        shelf.take(Event::Apply(object("a", Some("x"))), digest);
        let woken = shelf.take(Event::Apply(object("a", Some("y"))), digest);
        assert_eq!(woken, [group("x"), group("y")]);
        assert_eq!(names(&shelf, "x"), [""; 0]);
        assert_eq!(
            shelf.take(Event::Apply(object("a", None)), digest),
            [group("y")]
        );
        assert_eq!(shelf.take(Event::Delete(object("a", None)), digest), []);
    }
}
