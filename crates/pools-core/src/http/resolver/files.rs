//! Files of the system that may change while we run.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::Mutex;

use super::Addresses;

/// Time of the last change and length; `None` where there is no file.
type Stamp = Option<(SystemTime, u64)>;
/// Makes a value of a file's text.
type Reading<T> = dyn Fn(Option<&str>) -> T + Send + Sync;

/// What a file says, read again when it has changed.
pub(super) struct Watched<T> {
    path: PathBuf,
    read: Box<Reading<T>>,
    last: Mutex<Option<(Stamp, Arc<T>)>>,
}

impl<T> Watched<T> {
    /// `read` is given the text, or nothing where it cannot be had. It is called once for each change.
    pub(super) fn new(path: &Path, read: impl Fn(Option<&str>) -> T + Send + Sync + 'static) -> Self {
        Self { path: path.to_owned(), read: Box::new(read), last: Mutex::new(None) }
    }

    pub(super) async fn get(&self) -> Arc<T> {
        let file = tokio::fs::metadata(&self.path).await.ok();
        let stamp = file.and_then(|file| Some((file.modified().ok()?, file.len())));
        if let Some(value) = self.last_of(stamp) {
            return value;
        }
        let bytes = tokio::fs::read(&self.path).await.ok();
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let mut last = self.last.lock();
        // Several may have come here at once; what one of them has made does for all.
        if let Some((_, value)) = last.as_ref().filter(|(seen, _)| *seen == stamp) {
            return Arc::clone(value);
        }
        let value = Arc::new((self.read)(text.as_deref()));
        *last = Some((stamp, Arc::clone(&value)));
        value
    }

    fn last_of(&self, stamp: Stamp) -> Option<Arc<T>> {
        let last = self.last.lock();
        last.as_ref().filter(|(seen, _)| *seen == stamp).map(|(_, value)| Arc::clone(value))
    }
}

/// The hosts file.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Lines of an address and its names. A line that is none is left out, as everywhere.
    pub(super) fn read(text: Option<&str>) -> Self {
        let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.unwrap_or_default().lines() {
            let line = line.split_once('#').map_or(line, |(line, _)| line);
            let mut words = line.split_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse) else { continue };
            for name in words {
                names.entry(name.to_ascii_lowercase()).or_default().push(address);
            }
        }
        Self(names)
    }

    /// `name` is in small letters.
    pub(super) fn find(&self, name: &str) -> Option<Addresses> {
        self.0.get(name).map(|addresses| addresses.as_slice().into())
    }
}
