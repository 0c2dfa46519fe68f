//! Keys of the documented configuration whose feature this version does not have. A key that would be
//! accepted and ignored misleads; one that is called unknown sends people looking for a typing error.

/// `section` or `section.key`. A feature takes its lines out when it comes.
const NOT_YET: &[&str] = &[];

/// How to name `key` of `section` (empty at the top) in an error, if its feature is still to come.
pub(super) fn not_yet(section: &str, key: &str) -> Option<String> {
    let is_listed = |path: &str| NOT_YET.contains(&path);
    if section.is_empty() {
        return is_listed(key).then(|| format!("[{key}]"));
    }
    is_listed(&format!("{section}.{key}")).then(|| format!("`{key}`"))
}

#[cfg(test)]
pub(super) fn listed() -> &'static [&'static str] {
    NOT_YET
}
