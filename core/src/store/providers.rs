//! What is known of the S3 providers: the one table, which the client, `doctor` and `docs/providers.md`
//! share.
//!
//! Each fact is the provider's own word or a report that [`Provider::sources`] names; only
//! [`Provider::tried`] was seen by us. What counts is what the store does: the lease tries its
//! conditional writes after each take-over, and `doctor` tries everything.

/// Whether a provider has something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// It has.
    Yes,
    /// It has not: the condition is refused or ignored.
    No,
    /// Newer versions have.
    Newer,
    /// Nobody says.
    Unknown,
}

impl Support {
    /// The word of the documentation.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Newer => "newer versions",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a bucket's name stands in a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the path.
    Path,
    /// In the host name.
    Host,
}

/// The region that requests are signed for where nothing names one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Region {
    /// Always this one.
    Fixed(&'static str),
    /// What stands in the endpoint's host between these two.
    InHost {
        /// Before it; may be empty.
        before: &'static str,
        /// After it.
        after: &'static str,
    },
    /// The server's own configuration says; [`DEFAULT_REGION`](super::DEFAULT_REGION) is the first guess.
    Configured,
}

/// One provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Provider {
    /// Its name.
    pub name: &'static str,
    /// What the endpoint's host ends with; none for a server that anybody runs.
    pub hosts: &'static [&'static str],
    /// Where the bucket's name goes, with an endpoint, unless the configuration says otherwise.
    pub place: Place,
    /// The region to sign for.
    pub region: Region,
    /// Whether `If-None-Match: *` on PUT refuses to replace.
    pub create_only: Support,
    /// Whether `If-Match` on PUT refuses to replace another version.
    pub replace: Support,
    /// Whether `If-None-Match: *` on the completion of a multipart upload refuses to replace.
    pub upload_create_only: Support,
    /// `If-Match` knows the version without its quotes only.
    pub bare_etags: bool,
    /// What is special.
    pub special: &'static str,
    /// Where the facts are from.
    pub sources: &'static [&'static str],
    /// What of it was tried with walrust.
    pub tried: Option<&'static str>,
}

/// All of them.
pub const PROVIDERS: &[Provider] = &[
    Provider {
        name: "AWS S3",
        hosts: &["amazonaws.com", "amazonaws.com.cn"],
        place: Place::Path,
        region: Region::InHost {
            before: "s3.",
            after: ".amazonaws.com",
        },
        create_only: Support::Yes,
        replace: Support::Yes,
        upload_create_only: Support::Yes,
        bare_etags: false,
        special: "needs no endpoint, and then has the bucket in the host name; a PUT that meets another one may be answered 409, and is then sent again",
        sources: &[
            "https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html",
            "https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html",
        ],
        tried: None,
    },
    Provider {
        name: "Cloudflare R2",
        hosts: &["r2.cloudflarestorage.com"],
        place: Place::Path,
        region: Region::Fixed("auto"),
        create_only: Support::Yes,
        replace: Support::Yes,
        upload_create_only: Support::Yes,
        bare_etags: false,
        special: "the region is `auto`; `us-east-1` is another name for it",
        sources: &[
            "https://developers.cloudflare.com/r2/api/s3/api/",
            "https://developers.cloudflare.com/r2/api/s3/conditional-operations/",
        ],
        tried: None,
    },
    Provider {
        name: "Backblaze B2",
        hosts: &["backblazeb2.com"],
        place: Place::Path,
        region: Region::InHost {
            before: "s3.",
            after: ".backblazeb2.com",
        },
        create_only: Support::No,
        replace: Support::No,
        upload_create_only: Support::Unknown,
        bare_etags: false,
        special: "a condition is answered 501, so streams are unfenced: watch a database from one place only; \
                  take an application key, not the master key",
        sources: &[
            "https://www.backblaze.com/apidocs/introduction-to-the-s3-compatible-api",
            "https://github.com/sathinduga/obsidian-s3-sync-and-backup/issues/78",
        ],
        tried: None,
    },
    Provider {
        name: "Tigris",
        hosts: &["storage.tigris.dev", "t3.storage.dev"],
        place: Place::Host,
        region: Region::Fixed("auto"),
        create_only: Support::Yes,
        replace: Support::Yes,
        upload_create_only: Support::Unknown,
        bare_etags: false,
        special: "buckets made since 19 February 2025 are not reached with their name in the path",
        sources: &[
            "https://www.tigrisdata.com/docs/objects/conditionals.md",
            "https://www.tigrisdata.com/docs/llms-full.txt",
            "https://tigrisdata.com/blog/virtual-hosted-urls",
        ],
        tried: None,
    },
    Provider {
        name: "MinIO",
        hosts: &[],
        place: Place::Path,
        region: Region::Configured,
        create_only: Support::Yes,
        replace: Support::Yes,
        upload_create_only: Support::Unknown,
        bare_etags: false,
        special: "conditional writes since February 2023",
        sources: &[
            "https://blog.min.io/leading-the-way-minios-conditional-write-feature-for-modern-data-workloads/",
        ],
        tried: None,
    },
    Provider {
        name: "Ceph RGW",
        hosts: &[],
        place: Place::Path,
        region: Region::Configured,
        create_only: Support::Newer,
        replace: Support::Newer,
        upload_create_only: Support::Newer,
        bare_etags: false,
        special: "older versions take a condition and ignore it, so streams are unfenced there",
        sources: &[
            "https://github.com/ceph/s3-tests/pull/663",
            "https://github.com/ceph/s3-tests/pull/693",
            "https://github.com/open-rails/contentkit/releases/tag/v0.58.1",
        ],
        tried: None,
    },
    Provider {
        name: "Garage",
        hosts: &[],
        place: Place::Path,
        region: Region::Configured,
        create_only: Support::Unknown,
        replace: Support::Unknown,
        upload_create_only: Support::Unknown,
        bare_etags: false,
        special: "set `region` to the `s3_region` of its configuration, often `garage`",
        sources: &[
            "https://garagehq.deuxfleurs.fr/connect/index.html",
            "https://git.deuxfleurs.fr/Deuxfleurs/garagehq.deuxfleurs.fr/src/commit/921dd28f7499e46d78bd39d9ac7630efc50b64e8/content/documentation/reference-manual/s3_compatibility.md",
        ],
        tried: None,
    },
    Provider {
        name: "SeaweedFS",
        hosts: &[],
        place: Place::Path,
        region: Region::Configured,
        create_only: Support::Yes,
        replace: Support::Yes,
        upload_create_only: Support::Yes,
        bare_etags: false,
        special: "any region; a listing over several folders comes in the order of a file system",
        sources: &[],
        tried: Some("4.48, the whole test suite"),
    },
    Provider {
        name: "Google Cloud Storage (XML API)",
        hosts: &["storage.googleapis.com"],
        place: Place::Path,
        region: Region::Fixed("auto"),
        create_only: Support::No,
        replace: Support::No,
        upload_create_only: Support::No,
        bare_etags: false,
        special: "needs HMAC keys; `If-Match` and `If-None-Match` are for reads (writes have generation \
                  numbers), so streams are unfenced: watch a database from one place only",
        sources: &[
            "https://docs.cloud.google.com/storage/docs/aws-simple-migration.md.txt",
            "https://docs.cloud.google.com/storage/docs/request-preconditions.md.txt",
        ],
        tried: None,
    },
    Provider {
        name: "Wasabi",
        hosts: &["wasabisys.com"],
        place: Place::Path,
        region: Region::InHost {
            before: "s3.",
            after: ".wasabisys.com",
        },
        create_only: Support::Unknown,
        replace: Support::Unknown,
        upload_create_only: Support::Unknown,
        bare_etags: false,
        special: "`s3.wasabisys.com` is `us-east-1`; for a short name such as `s3.nl-1.wasabisys.com` set `region`",
        sources: &[
            "https://docs.wasabi.com/docs/service-urls-for-wasabis-storage-regions.md",
            "https://docs.wasabi.com/apidocs/wasabi-api.md",
        ],
        tried: None,
    },
    Provider {
        name: "DigitalOcean Spaces",
        hosts: &["digitaloceanspaces.com"],
        place: Place::Path,
        region: Region::Configured,
        create_only: Support::Yes,
        replace: Support::Yes,
        upload_create_only: Support::Unknown,
        bare_etags: true,
        special: "`If-Match` takes a version without quotes only, and is sent so",
        sources: &[
            "https://docs.digitalocean.com/products/spaces/reference/aws-sdks/",
            "https://github.com/slatedb/slatedb/issues/1818",
            "https://github.com/slatedb/slatedb/pull/1816",
        ],
        tried: None,
    },
    Provider {
        name: "Hetzner Object Storage",
        hosts: &["your-objectstorage.com"],
        place: Place::Path,
        region: Region::InHost {
            before: "",
            after: ".your-objectstorage.com",
        },
        create_only: Support::Unknown,
        replace: Support::Unknown,
        upload_create_only: Support::Unknown,
        bare_etags: false,
        special: "said to run on Ceph: see there",
        sources: &[
            "https://docs.hetzner.com/storage/object-storage/faq/buckets-objects",
            "https://github.com/robinrodricks/FluentStorage/wiki/Hetzner-Storage",
            "https://grokipedia.com/page/Hetzner_Object_Storage",
        ],
        tried: None,
    },
];

impl Provider {
    /// The provider behind an endpoint; none for one that is not in the table.
    pub fn of_endpoint(endpoint: &str) -> Option<&'static Self> {
        let host = host(endpoint);
        PROVIDERS.iter().find(|provider| {
            provider.hosts.iter().any(|suffix| {
                let rest = host.strip_suffix(suffix);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        })
    }

    /// The region to sign for at `endpoint`, where the table knows.
    pub fn region_at(&self, endpoint: &str) -> Option<String> {
        match self.region {
            Region::Fixed(region) => Some(region.to_owned()),
            Region::Configured => None,
            Region::InHost { before, after } => {
                let host = host(endpoint);
                let region = host.strip_suffix(after)?.strip_prefix(before)?;
                // `eu-central-1`, `us-west-004`, `fsn1`; a short name such as `nl-1` is none, nor is `dualstack.x`.
                let letter = |c: char| c.is_ascii_alphanumeric() || c == '-';
                let named = !region.is_empty()
                    && region.chars().all(letter)
                    && region.matches('-').count() != 1;
                named.then(|| region.to_owned())
            }
        }
    }

    /// Whether two writers can be kept apart, as far as the table knows.
    pub fn fences(&self) -> Support {
        match (self.create_only, self.replace) {
            (Support::No, _) | (_, Support::No) => Support::No,
            (Support::Unknown, _) | (_, Support::Unknown) => Support::Unknown,
            (Support::Newer, _) | (_, Support::Newer) => Support::Newer,
            (Support::Yes, Support::Yes) => Support::Yes,
        }
    }
}

/// The host of `http[s]://host[:port][/path]`, in lower case.
fn host(endpoint: &str) -> String {
    let rest = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(endpoint: &str) -> Option<&'static str> {
        Provider::of_endpoint(endpoint).map(|provider| provider.name)
    }

    #[test]
    fn a_provider_is_known_by_its_host() {
        for (endpoint, name) in [
            ("https://s3.eu-central-1.amazonaws.com", Some("AWS S3")),
            ("https://s3.cn-north-1.amazonaws.com.cn", Some("AWS S3")),
            (
                "https://0123.r2.cloudflarestorage.com",
                Some("Cloudflare R2"),
            ),
            (
                "https://0123.eu.r2.cloudflarestorage.com/",
                Some("Cloudflare R2"),
            ),
            (
                "https://s3.us-west-004.backblazeb2.com",
                Some("Backblaze B2"),
            ),
            ("https://fly.storage.tigris.dev", Some("Tigris")),
            ("https://t3.storage.dev:443/x", Some("Tigris")),
            (
                "https://STORAGE.googleapis.com",
                Some("Google Cloud Storage (XML API)"),
            ),
            ("https://s3.wasabisys.com", Some("Wasabi")),
            (
                "https://nyc3.digitaloceanspaces.com",
                Some("DigitalOcean Spaces"),
            ),
            (
                "https://fsn1.your-objectstorage.com",
                Some("Hetzner Object Storage"),
            ),
            ("http://localhost:9000", None),
            ("http://[::1]:9000", None),
            ("https://wasabisys.com.example.org", None),
            ("https://notwasabisys.com", None),
            ("https://example.org/wasabisys.com", None),
        ] {
            assert_eq!(named(endpoint), name, "{endpoint}");
        }
    }

    #[test]
    fn a_region_is_read_from_the_host_or_known() {
        for (endpoint, region) in [
            (
                "https://s3.eu-central-1.amazonaws.com",
                Some("eu-central-1"),
            ),
            ("https://s3.amazonaws.com", None),
            ("https://s3.dualstack.eu-west-1.amazonaws.com", None),
            ("https://0123.r2.cloudflarestorage.com", Some("auto")),
            (
                "https://s3.us-west-004.backblazeb2.com",
                Some("us-west-004"),
            ),
            ("https://fly.storage.tigris.dev", Some("auto")),
            ("https://storage.googleapis.com", Some("auto")),
            ("https://s3.wasabisys.com", None),
            (
                "https://s3.eu-central-1.wasabisys.com",
                Some("eu-central-1"),
            ),
            ("https://s3.nl-1.wasabisys.com", None),
            ("https://nyc3.digitaloceanspaces.com", None),
            ("https://fsn1.your-objectstorage.com", Some("fsn1")),
        ] {
            let provider = Provider::of_endpoint(endpoint).unwrap();
            assert_eq!(
                provider.region_at(endpoint).as_deref(),
                region,
                "{endpoint}"
            );
        }
    }

    #[test]
    fn every_row_cites_its_source_or_was_tried() {
        for provider in PROVIDERS {
            assert!(
                !provider.sources.is_empty() || provider.tried.is_some(),
                "{}",
                provider.name
            );
        }
    }

    /// The two lines of a provider in `docs/providers.md`.
    fn documented(provider: &Provider) -> String {
        let hosts = match provider.hosts {
            [] => "your own server".to_owned(),
            hosts => hosts
                .iter()
                .map(|host| format!("`{host}`"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let place = match provider.place {
            Place::Path => "path",
            Place::Host => "host",
        };
        let region = match provider.region {
            Region::Fixed(region) => format!("`{region}`"),
            Region::InHost { before, after } => format!("in `{before}REGION{after}`"),
            Region::Configured => "`us-east-1`, or as configured".to_owned(),
        };
        format!(
            "| {} | {hosts} | {place} | {region} | {} | {} | {} | {} |",
            provider.name,
            provider.create_only.word(),
            provider.replace.word(),
            provider.upload_create_only.word(),
            provider.tried.unwrap_or("untried"),
        )
    }

    fn noted(provider: &Provider) -> String {
        let mut line = format!("* **{}**: {}.", provider.name, provider.special);
        for source in provider.sources {
            line.push_str(&format!(" <{source}>"));
        }
        line
    }

    #[test]
    fn the_documentation_has_the_table_and_nothing_else() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/providers.md");
        let text = std::fs::read_to_string(path).unwrap();
        let expected: Vec<String> = PROVIDERS.iter().map(documented).collect();
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| provider"))
            .collect();
        assert_eq!(rows, expected, "{}", expected.join("\n"));
        let expected: Vec<String> = PROVIDERS.iter().map(noted).collect();
        let notes: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("* **"))
            .collect();
        assert_eq!(notes, expected, "{}", expected.join("\n"));
    }
}
