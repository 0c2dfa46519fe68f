//! `lease.json` and `claim.json`: what they hold, and nothing believed that they say wrongly.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::types::{Epoch, Lineage, StreamId, Timestamp};

/// The version of both formats.
const VERSION: u32 = 1;

/// Neither file comes near this.
const LARGEST: usize = 64 << 10;

/// Names one process: 16 hex digits, random. Part of a key, so nothing else is one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HolderId(String);

impl HolderId {
    /// An id that nobody has.
    pub fn random() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)))
    }

    /// The 16 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HolderId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 16 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a holder's id is 16 lowercase hex digits".to_owned())
        }
    }
}

impl TryFrom<String> for HolderId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HolderId> for String {
    fn from(id: HolderId) -> Self {
        id.0
    }
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HolderId({self})")
    }
}

/// The lock file of a state directory. Whoever holds this very lock knows that no other process of this
/// boot does; a copy of the volume has another device or inode, another machine another boot.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LockIdentity {
    /// The device of the lock file.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// The machine's boot id.
    pub boot: String,
}

/// Who wants to write.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub id: HolderId,
    /// Who that is, for people: a pod or a host.
    pub name: String,
    /// The lock that it holds on the database's state directory.
    #[serde(default)]
    pub lock: Option<LockIdentity>,
}

/// The content of `lease.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    v: u32,
    /// The stream's history.
    pub lineage: Lineage,
    /// The writer's turn in it.
    pub epoch: Epoch,
    /// The writer.
    pub holder: Holder,
    /// Random, new with each take-over: tells this writer's lease from any other.
    pub token: String,
    /// When the writer took it, by the store's clock where that is known.
    pub since: Timestamp,
    /// Whether the writer has given it back.
    pub released: bool,
}

impl Record {
    /// A new lease.
    pub fn new(stream: StreamId, holder: Holder, since: Timestamp) -> Self {
        Self {
            v: VERSION,
            lineage: stream.lineage,
            epoch: stream.epoch,
            holder,
            token: format!("{:032x}", fastrand::u128(..)),
            since,
            released: false,
        }
    }

    /// Lineage and epoch.
    pub fn stream(&self) -> StreamId {
        StreamId {
            lineage: self.lineage,
            epoch: self.epoch,
        }
    }

    /// The same lease, given back.
    #[must_use]
    pub fn release(mut self) -> Self {
        self.released = true;
        self
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Result<Bytes> {
        to_bytes(self)
    }

    /// Reads `lease.json`. Errors: `Corrupt`, and `Unsupported` for a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        from_bytes(bytes)
    }
}

/// The content of `claim.json`, which stands under the id of the holder that is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    v: u32,
    /// Who asks.
    pub challenger: HolderId,
    /// Who that is, for people.
    pub name: String,
    /// Random: tells each question from the one before.
    pub nonce: String,
    /// How often the holder has answered. Only ever grows, so that no answer is lost when challengers ask
    /// over each other.
    pub answers: u64,
    /// The question that was answered last.
    #[serde(default)]
    pub answered: Option<String>,
}

impl Claim {
    /// A question, in the place of the one before.
    pub fn ask(challenger: &Holder, before: Option<&Self>) -> Self {
        Self {
            v: VERSION,
            challenger: challenger.id.clone(),
            name: challenger.name.clone(),
            nonce: format!("{:016x}", fastrand::u64(..)),
            answers: before.map_or(0, |before| before.answers),
            answered: before.and_then(|before| before.answered.clone()),
        }
    }

    /// Whether the holder still owes an answer.
    pub fn is_open(&self) -> bool {
        self.answered.as_deref() != Some(self.nonce.as_str())
    }

    /// The holder's answer: it lives.
    #[must_use]
    pub fn answer(mut self) -> Self {
        self.answers = self.answers.saturating_add(1);
        self.answered = Some(self.nonce.clone());
        self
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Result<Bytes> {
        to_bytes(self)
    }

    /// Reads `claim.json`. Errors: `Corrupt`, and `Unsupported` for a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        from_bytes(bytes)
    }
}

fn to_bytes(value: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(value);
    bytes.map(Bytes::from).map_err(|error| {
        Error::new(ErrorKind::Internal, "not to be written as JSON").because(error)
    })
}

fn from_bytes<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let corrupt =
        |error: serde_json::Error| Error::new(ErrorKind::Corrupt, error.to_string()).because(error);
    if bytes.len() > LARGEST {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{} bytes are too many", bytes.len()),
        ));
    }
    let Version { v } = serde_json::from_slice(bytes).map_err(corrupt)?;
    if v != VERSION {
        let message = format!("version {v} is not known");
        return Err(Error::new(ErrorKind::Unsupported, message).hint("a newer walrust wrote it"));
    }
    serde_json::from_slice(bytes).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        let lock = LockIdentity {
            device: 1,
            inode: 2,
            boot: "b".to_owned(),
        };
        Holder {
            id: "00000000000000ff".parse().unwrap(),
            name: "pod-0".to_owned(),
            lock: Some(lock),
        }
    }

    #[test]
    fn a_lease_reads_back_and_damage_is_an_error() {
        let stream = StreamId {
            lineage: Lineage::new(7).unwrap(),
            epoch: Epoch::FIRST,
        };
        let record = Record::new(stream, holder(), Timestamp::from_millis(1_000));
        let bytes = record.to_bytes().unwrap();
        assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
        for length in 0..bytes.len() {
            assert_eq!(
                Record::from_bytes(&bytes[..length]).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
        // Whatever a byte becomes, reading ends; and an id can never leave its folder.
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            let _ = Record::from_bytes(&damaged);
        }
    }

    #[test]
    fn x4_a_holder_id_is_hex_and_never_leads_elsewhere() {
        for bad in [
            "",
            "../../0000000000",
            "00000000000000FF",
            "0000000000000/ff",
            "00000000000000ff0",
        ] {
            assert!(bad.parse::<HolderId>().is_err(), "{bad}");
            let text = format!("{{\"id\":{bad:?},\"name\":\"x\"}}");
            assert!(serde_json::from_str::<Holder>(&text).is_err(), "{bad}");
        }
        assert!(HolderId::random().as_str().parse::<HolderId>().is_ok());
    }

    #[test]
    fn a_later_version_is_told_apart_from_damage() {
        assert_eq!(
            Record::from_bytes(b"{\"v\": 2}").unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(
            Record::from_bytes(b"{\"v\": 1}").unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(
            Record::from_bytes(b"[]").unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }

    #[test]
    fn no_answer_is_lost_when_challengers_ask_over_each_other() {
        let first = Claim::ask(&holder(), None);
        assert!(first.is_open());
        let answered = first.clone().answer();
        assert!(!answered.is_open());
        let second = Claim::ask(&holder(), Some(&answered));
        assert!(second.is_open());
        assert!(
            second.answers > first.answers,
            "the first challenger still sees that it was answered"
        );
        assert_eq!(
            Claim::from_bytes(&second.to_bytes().unwrap()).unwrap(),
            second
        );
    }
}
