//! What is in a database's folder, whoever wrote it: walrust and Litestream on S3 use the same keys,
//! Litestream's other replicas put `ltx/` and decimal levels before the name.

use super::entry::FileKey;
use crate::error::Result;
use crate::store::{Layout, ObjectMeta, Store, list_all};
use crate::types::TxidRange;

/// Which keys a database's files have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Keys {
    /// `0000/<min>-<max>.ltx`: walrust, and Litestream on S3.
    Hex,
    /// `ltx/0/<min>-<max>.ltx`: Litestream's file replicas.
    Decimal,
}

impl Keys {
    /// The object that holds `file`.
    pub fn object(self, layout: &Layout, file: FileKey) -> String {
        match self {
            Self::Hex => layout.key(file.entry()),
            Self::Decimal => {
                format!(
                    "{}ltx/{}/{}.ltx",
                    layout.folder(),
                    file.level(),
                    file.range()
                )
            }
        }
    }

    /// The file that `key`, which begins with the database's folder, stands for.
    pub fn parse(self, layout: &Layout, key: &str) -> Option<FileKey> {
        match self {
            Self::Hex => FileKey::from_entry(layout.parse(key)?),
            Self::Decimal => parse_decimal(key.strip_prefix(&layout.folder())?),
        }
    }
}

/// Reads `ltx/<level>/<min>-<max>.ltx`. Litestream takes exactly this spelling, so no other counts.
pub(super) fn parse_decimal(rest: &str) -> Option<FileKey> {
    let (level, file) = rest.strip_prefix("ltx/")?.split_once('/')?;
    let &[digit @ b'0'..=b'9'] = level.as_bytes() else {
        return None;
    };
    let (min, max) = file.strip_suffix(".ltx")?.split_once('-')?;
    let range = TxidRange::new(min.parse().ok()?, max.parse().ok()?)?;
    FileKey::new(digit - b'0', range)
}

/// One LTX object as a listing shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// What its name says.
    pub file: FileKey,
    /// Its size in bytes.
    pub size: u64,
}

/// Everything in a database's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Whose keys the files have.
    pub keys: Keys,
    /// The LTX files.
    pub files: Vec<Listed>,
}

/// Lists all LTX files of a database. Databases nested below its name are left out.
///
/// Errors: those of the store; never a partial listing.
pub async fn list_files(store: &dyn Store, layout: &Layout) -> Result<Listing> {
    let folder = layout.folder();
    let folders = store.list_folders(&folder).await?;
    let mut listing = Listing {
        keys: Keys::Hex,
        files: Vec::new(),
    };
    let level = |name: &&String| {
        let name = name.strip_prefix(&folder).unwrap_or_default();
        name.len() == 5 && name.starts_with("000") && name.ends_with('/')
    };
    for name in folders.iter().filter(level) {
        let objects = list_all(store, name, None).await?;
        listing.files.extend(keep(Keys::Hex, layout, &objects));
    }
    let decimal = format!("{folder}ltx/");
    if listing.files.is_empty() && folders.contains(&decimal) {
        let objects = list_all(store, &decimal, None).await?;
        listing.files = keep(Keys::Decimal, layout, &objects).collect();
        listing.keys = Keys::Decimal;
    }
    Ok(listing)
}

/// Lists the incrementals behind `last`.
pub async fn list_tail(
    store: &dyn Store,
    layout: &Layout,
    last: Option<FileKey>,
) -> Result<Vec<Listed>> {
    let after = last.map(|file| layout.key(file.entry()));
    let objects = list_all(store, &layout.incremental_folder(), after.as_deref()).await?;
    Ok(keep(Keys::Hex, layout, &objects).collect())
}

fn keep<'a>(
    keys: Keys,
    layout: &'a Layout,
    objects: &'a [ObjectMeta],
) -> impl Iterator<Item = Listed> + 'a {
    objects.iter().filter_map(move |object| {
        let file = keys.parse(layout, &object.key)?;
        Some(Listed {
            file,
            size: object.size,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn litestreams_decimal_keys_are_read_and_nothing_else() {
        let range = TxidRange::new(
            "0000000000000002".parse().unwrap(),
            "000000000000001f".parse().unwrap(),
        );
        let file = FileKey::new(8, range.unwrap()).unwrap();
        let layout = Layout::new("p".parse().unwrap(), "a/app.db".parse().unwrap());
        let key = Keys::Decimal.object(&layout, file);
        assert_eq!(
            key,
            "p/a/app.db/ltx/8/0000000000000002-000000000000001f.ltx"
        );
        assert_eq!(Keys::Decimal.parse(&layout, &key), Some(file));
        for bad in [
            "ltx/10/0000000000000002-000000000000001f.ltx",
            "ltx/08/0000000000000002-000000000000001f.ltx",
            "ltx/8/0000000000000002-000000000000001F.ltx",
            "ltx/9/0000000000000002-000000000000001f.ltx",
            "ltx/8/x/0000000000000002-000000000000001f.ltx",
            "8/0000000000000002-000000000000001f.ltx",
        ] {
            assert_eq!(parse_decimal(bad), None, "{bad}");
        }
    }
}
