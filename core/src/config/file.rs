//! `walrust.toml`: from text to layers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use toml::de::{DeTable, DeValue};

use super::Environment;
use super::choices::{LogFormat, PathStyle};
use super::encryption;
use super::fault::{Fault, Faults, Place, Source};
use super::heartbeat::HeartbeatUrl;
use super::limits;
use super::metrics::MetricsLayer;
use super::proxy::ProxyAddress;
use super::retention::RetentionLayer;
use super::section::{Reader, Section, Value};
use super::settings::{StoreLayer, SyncLayer};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{DatabaseName, Txid};

/// The file that is read where none is named and this one is there (R4).
pub const DEFAULT_FILE: &str = "./walrust.toml";

/// More than any configuration needs; a longer file is something else.
const LONGEST_FILE: u64 = 4 << 20;

/// What a configuration file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct File {
    /// Where it was read from.
    pub path: PathBuf,
    /// The first 12 hex digits of the SHA-256 of its bytes.
    pub hash: String,
    /// `[s3]`.
    pub store: StoreLayer,
    /// `[sync]`, but for `memory_limit`.
    pub sync: SyncLayer,
    /// `[retention]`.
    pub retention: RetentionLayer,
    /// `sync.memory_limit`.
    pub memory_limit: Option<u64>,
    /// `replicate.interval`.
    pub replicate_interval: Option<Duration>,
    /// `[metrics]`.
    pub metrics: MetricsLayer,
    /// `log.format`.
    pub log_format: Option<LogFormat>,
    /// Which address is told of health.
    pub heartbeat: Option<HeartbeatUrl>,
    /// `[[databases]]`.
    pub databases: Vec<Entry>,
}

/// One `[[databases]]` entry: a file, or a pattern for several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where it stands in the file.
    pub place: Place,
    /// The file, or a pattern in the last part; of an entry that names a replica alone, the replica.
    pub path: PathBuf,
    /// Where a replica of it lives, instead of `path`.
    pub local: Option<PathBuf>,
    /// What replaces the file's name in the bucket.
    pub prefix: Option<DatabaseName>,
    /// Whether to wait for a file that is not there.
    pub optional: bool,
    /// Whether to leave it alone for now.
    pub paused: bool,
    /// The head at which an unknown stream may be adopted.
    pub adopt_at: Option<Txid>,
    /// What it overrides.
    pub sync: SyncLayer,
    /// What it overrides of `[retention]`.
    pub retention: RetentionLayer,
}

impl File {
    /// The file at `path`, or what is wrong with it.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self> {
        let length = std::fs::metadata(path)
            .map_err(|error| Error::io(path.display(), error))?
            .len();
        if length > LONGEST_FILE {
            let message = format!("{length} bytes are no configuration");
            return Err(Error::new(ErrorKind::Invalid, message).on(path.display()));
        }
        let bytes = std::fs::read(path).map_err(|error| Error::io(path.display(), error))?;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => return Err(not_text(path, &bytes, error.valid_up_to()).into()),
        };
        Self::parse(path, text, environment).map_err(Error::from)
    }

    /// [`DEFAULT_FILE`] if it is there.
    pub fn load_default(environment: &Environment) -> Result<Option<Self>> {
        let path = Path::new(DEFAULT_FILE);
        match path.try_exists() {
            Ok(false) => Ok(None),
            Ok(true) => Self::load(path, environment).map(Some),
            Err(error) => Err(Error::io(path.display(), error)),
        }
    }

    /// `text` as the content of `path`, or everything that is wrong with it.
    pub fn parse(path: &Path, text: &str, environment: &Environment) -> Result<Self, Faults> {
        let mut reader = Reader {
            source: Source(text),
            environment,
            faults: Vec::new(),
        };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            reader.fault(&span, one_line(error.message()));
        }
        // What follows a broken line may have been put into the wrong table.
        let file = if reader.faults.is_empty() {
            read_file(&mut reader, document.get_ref())
        } else {
            Self::default()
        };
        if reader.faults.is_empty() {
            return Ok(Self {
                path: path.to_owned(),
                hash: hash(text),
                ..file
            });
        }
        let mut faults = reader.faults;
        faults.sort_by_key(|fault| fault.place);
        Err(Faults {
            path: path.to_owned(),
            faults,
        })
    }
}

fn not_text(path: &Path, bytes: &[u8], valid: usize) -> Faults {
    let before = String::from_utf8_lossy(&bytes[..valid]);
    Faults {
        path: path.to_owned(),
        faults: vec![Fault {
            place: Source(&before).place(&(valid..valid)),
            message: "not UTF-8 text".to_owned(),
        }],
    }
}

/// Whoever wrote the file can tell by this which version is in use.
fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let digits = digest.iter().take(6);
    digits.map(|byte| format!("{byte:02x}")).collect()
}

fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(", ")
}

fn read_file<'t>(reader: &mut Reader<'t>, document: &DeTable<'t>) -> File {
    let mut file = File::default();
    let mut top = Section::new(reader, "", document);
    if let Some(table) = top.table("s3") {
        file.store = read_store(top.reader(), table);
    }
    if let Some(table) = top.table("sync") {
        let mut section = Section::new(top.reader(), "sync", table);
        file.sync = read_sync(&mut section);
        file.memory_limit = section.take("memory_limit", |value| {
            limits::memory(value.size()?).map_err(|error| error.to_string())
        });
        section.finish();
    }
    if let Some(table) = top.table("retention") {
        let section = Section::new(top.reader(), "retention", table);
        file.retention = RetentionLayer::read(section);
    }
    if let Some(table) = top.table("replicate") {
        let mut section = Section::new(top.reader(), "replicate", table);
        file.replicate_interval = section.take("interval", |value| {
            limits::poll_interval(value.duration()?).map_err(|error| error.to_string())
        });
        section.finish();
    }
    if let Some(table) = top.table("metrics") {
        file.metrics = read_metrics(top.reader(), table);
    }
    if let Some(table) = top.table("log") {
        let mut section = Section::new(top.reader(), "log", table);
        file.log_format = section.take("format", |value| value.parsed());
        let url = section.take("heartbeat_url", |value| match value.text()?.as_str() {
            // As if it were not there.
            "" => Ok(None),
            url => HeartbeatUrl::new(url)
                .map(Some)
                .map_err(|error| error.to_string()),
        });
        file.heartbeat = url.flatten();
        section.finish();
    }
    for entry in top.tables("databases") {
        let span = entry.span();
        match entry.get_ref() {
            DeValue::Table(table) => {
                file.databases
                    .extend(read_entry(top.reader(), table, &span));
            }
            _ => top.reader().fault(&span, "a database is a table"),
        }
    }
    top.finish();
    file
}

fn read_store<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> StoreLayer {
    let mut section = Section::new(reader, "s3", table);
    let layer = StoreLayer {
        location: section.take("bucket", |value| {
            value
                .filled()?
                .parse()
                .map_err(|error: Error| error.message().to_owned())
        }),
        endpoint: section.take("endpoint", |value| {
            limits::endpoint(&value.filled()?).map_err(|error| error.to_string())
        }),
        region: section.take("region", |value| {
            limits::region(&value.filled()?).map_err(|error| error.to_string())
        }),
        path_style: section.take("path_style", path_style),
        credentials_dir: section.take("credentials_dir", |value| value.filled().map(Into::into)),
        ca_file: section.take("ca_file", |value| value.filled().map(Into::into)),
        proxy: section.take("proxy", |value| {
            ProxyAddress::new(&value.filled()?).map_err(|error| error.to_string())
        }),
        storage_class: section.take("storage_class", |value| {
            limits::storage_class(&value.filled()?).map_err(|error| error.to_string())
        }),
        sse: section.table("sse").and_then(|table| {
            let span = section.span_of("sse");
            encryption::read(Section::new(section.reader(), "s3.sse", table), &span)
        }),
        tags: section
            .table("tags")
            .map(|table| read_tags(section.reader(), table)),
        checksums: section.take("checksums", |value| value.boolean()),
        lease: section.take("lease", |value| value.parsed()),
        lease_duration: section.take("lease_duration", |value| {
            limits::lease_duration(value.duration()?).map_err(|error| error.to_string())
        }),
        gate_startup: section.take("gate_startup", |value| value.parsed()),
        max_requests: section.take("max_requests", |value| {
            limits::max_requests(value.whole()?).map_err(|error| error.to_string())
        }),
        bandwidth: section.take("bandwidth", |value| value.size()),
    };
    section.finish();
    layer
}

fn read_tags<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> BTreeMap<String, String> {
    if table.len() > limits::MOST_TAGS
        && let Some((key, _)) = table.iter().nth(limits::MOST_TAGS)
    {
        let message = format!("an object has at most {} tags", limits::MOST_TAGS);
        reader.fault(&key.span(), message);
    }
    Section::new(reader, "s3.tags", table)
        .texts(|key, value| limits::tag(key, value).map_err(|error| error.to_string()))
}

fn read_metrics<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> MetricsLayer {
    let mut section = Section::new(reader, "metrics", table);
    let layer = MetricsLayer {
        listen: section.take("listen", |value| {
            limits::listen(&value.text()?).map_err(|error| error.to_string())
        }),
        port: None,
        control: section.take("control", |value| {
            limits::control(&value.text()?).map_err(|error| error.to_string())
        }),
        ready_lag: section.take("ready_lag", |value| value.duration()),
    };
    section.finish();
    layer
}

/// `true` and `false` are also meant where they are not quoted.
fn path_style(value: Value<'_>) -> Result<PathStyle, String> {
    if !value.is_boolean() {
        return value.parsed();
    }
    Ok(match value.boolean()? {
        true => PathStyle::Path,
        false => PathStyle::Host,
    })
}

/// The keys that `[sync]` and `[[databases]]` share.
fn read_sync(section: &mut Section<'_, '_>) -> SyncLayer {
    let duration = |value: Value<'_>| value.duration();
    SyncLayer {
        sync_interval: section.take_either("sync_interval", "wal_sync_interval", |value| {
            limits::sync_interval(value.duration()?).map_err(|error| error.to_string())
        }),
        snapshot_interval: section.take("snapshot_interval", duration),
        max_changes: section.take("max_changes", |value| value.whole()),
        max_interval: section.take("max_interval", duration),
        on_idle: section.take("on_idle", duration),
        on_startup: section.take("on_startup", |value| value.boolean()),
        prove_interval: section.take("prove_interval", |value| {
            limits::prove_interval(value.duration()?).map_err(|error| error.to_string())
        }),
        compact_after_snapshot: section.take("compact_after_snapshot", |value| value.boolean()),
        compact_interval: section.take("compact_interval", |value| {
            limits::compact_interval(value.duration()?).map_err(|error| error.to_string())
        }),
        checkpoint_pages: section.take("checkpoint_pages", |value| {
            limits::checkpoint_pages(value.whole()?).map_err(|error| error.to_string())
        }),
        barrier: section.take("barrier", |value| value.parsed()),
        spool_limit: section.take("spool_limit", |value| {
            limits::spool(value.size()?).map_err(|error| error.to_string())
        }),
        set_wal_mode: section.take("set_wal_mode", |value| value.boolean()),
        allow_network_fs: section.take("allow_network_fs", |value| value.boolean()),
    }
}

fn read_entry<'t>(
    reader: &mut Reader<'t>,
    table: &DeTable<'t>,
    span: &Range<usize>,
) -> Option<Entry> {
    let place = reader.source.place(span);
    let mut section = Section::new(reader, "databases", table);
    let path = section.take("path", |value| value.filled());
    let local = section.take("local", |value| value.filled());
    let prefix = section.take_either("prefix", "name", |value| {
        let text = value.text()?;
        let name = text.strip_suffix('/').unwrap_or(&text);
        name.parse::<DatabaseName>()
            .map_err(|error| error.to_string())
    });
    let retention = section
        .table("retention")
        .map(|table| RetentionLayer::read(Section::new(section.reader(), "retention", table)));
    let entry = Entry {
        place,
        path: path.or(local.clone()).unwrap_or_default().into(),
        local: local.map(PathBuf::from),
        prefix,
        optional: section.take("optional", |value| value.boolean()) == Some(true),
        paused: section.take("paused", |value| value.boolean()) == Some(true),
        adopt_at: section
            .take("adopt_at", |value| value.whole())
            .and_then(Txid::new),
        sync: read_sync(&mut section),
        retention: retention.unwrap_or_default(),
    };
    if section.take("memory_limit", |_| Ok(())).is_some() {
        let message = "`memory_limit`: it holds for the whole process and belongs into [sync]";
        section.fault("memory_limit", span, message);
    }
    let is_named = !entry.path.as_os_str().is_empty();
    if !is_named && !table.contains_key("path") && !table.contains_key("local") {
        section.fault("path", span, "a database without `path`");
    }
    section.finish();
    is_named.then_some(entry)
}
