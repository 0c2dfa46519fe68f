//! A replica opened, made, or made anew: what happens around the image of its newest state.

use std::time::Duration;

use tokio::time::Instant;

use super::follow::{
    Batch, Bootstrapped, Follower, note_head, refuse_other_formats, unless_stopped,
};
use super::home::Replace;
use super::judge::Reason;
use super::local::{Former, Intact};
use super::proof::{Opened, open};
use super::renew::{check_place, create, renew, require_all_copied_back};
use super::window::Window;
use crate::error::{Error, ErrorKind, Result};
use crate::process::blocking;
use crate::restore::{Image, Overwrite};

/// The shortest and the longest time from the beginning of one bootstrap to the next. It doubles from one to the
/// next: whoever keeps writing to a replica does not make us fetch its source for ever.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

impl Follower {
    /// Opens what is at the place, and makes a replica where none is.
    pub(super) async fn open(&mut self, batch: &mut Batch) -> Result<()> {
        let home = self.home.clone();
        match blocking(move || open(&home)).await? {
            Opened::Replica(local) => {
                if !local.proved {
                    tracing::warn!(
                        path = %self.home.local.display(),
                        "the replica is not at TXID {}, which its state file names; looking what it holds",
                        local.position().txid.get()
                    );
                }
                self.local = Some(local);
                self.window = None;
                self.uncopied = true;
                Ok(())
            }
            Opened::Absent { known: false } if self.home.replace == Replace::No => {
                self.bootstrap(Overwrite::No, batch).await
            }
            Opened::Absent { .. } | Opened::Foreign => self.bootstrap(Overwrite::Yes, batch).await,
            Opened::Broken(reason, former) => self.renew(reason, *former, batch).await,
        }
    }

    /// Somebody may have written to the replica, or taken it away.
    pub(super) async fn check_local(&mut self, batch: &mut Batch) -> Result<()> {
        match self.with_local(|_, local| local.check()).await? {
            Intact::Yes => Ok(()),
            Intact::Written => self.renew_local(Reason::LocalWrite, batch).await,
            Intact::Moved => {
                tracing::warn!(path = %self.home.local.display(), "the replica's file was taken away");
                self.local = None;
                self.open(batch).await
            }
        }
    }

    async fn bootstrap(&mut self, overwrite: Overwrite, batch: &mut Batch) -> Result<()> {
        let home = self.home.clone();
        blocking(move || check_place(&home, overwrite)).await?;
        self.load().await?;
        self.may_make(None)?;
        let image = self.image().await?;
        self.note_image(None, &image, batch);
        let home = self.home.clone();
        self.local = Some(Box::new(
            blocking(move || create(&home, image, overwrite)).await?,
        ));
        self.uncopied = true;
        Ok(())
    }

    pub(super) async fn renew_local(&mut self, reason: Reason, batch: &mut Batch) -> Result<()> {
        self.may_make(Some(reason))?;
        let former = match self.local.take() {
            Some(local) => local.into_former(),
            None => Former::default(),
        };
        self.renew(reason, former, batch).await
    }

    async fn renew(&mut self, reason: Reason, former: Former, batch: &mut Batch) -> Result<()> {
        self.may_make(Some(reason))?;
        let former = self.require_room_for_another_shape(former).await?;
        tracing::warn!(path = %self.home.local.display(), "the replica is made anew: {reason}");
        let image = self.image().await?;
        let held = former.state.as_ref().map(|state| state.current_txid);
        let brought = image.header().range.max();
        if let Some(held) = held.filter(|held| *held > brought)
            && !reason.may_go_back()
        {
            let message = format!(
                "{reason}, and the newest state that can be restored is TXID {}, older than the replica's {}",
                brought.get(),
                held.get()
            );
            return Err(Error::new(ErrorKind::Corrupt, message)
                .on(self.home.local.display())
                .hint("see: walrust verify"));
        }
        self.note_image(Some(reason), &image, batch);
        let (home, stop) = (self.home.clone(), self.stop.clone());
        let renewed = blocking(move || renew(&home, former, image, &stop)).await;
        let local = renewed.inspect_err(|_| batch.bootstrapped = None)?;
        self.local = Some(Box::new(local));
        self.uncopied = true;
        Ok(())
    }

    /// Another page size means another file, for which every reader must be at the newest state: that is known
    /// before anything is fetched.
    async fn require_room_for_another_shape(&mut self, former: Former) -> Result<Former> {
        let Some(state) = &former.state else {
            return Ok(former);
        };
        let page_size = self.load().await?.page_size();
        if page_size.is_none_or(|page_size| page_size == state.page_size) {
            return Ok(former);
        }
        let home = self.home.clone();
        blocking(move || {
            let mut former = former;
            if let Some(db) = &mut former.db {
                require_all_copied_back(&home, db)?;
            }
            Ok(former)
        })
        .await
    }

    /// Errors: `Unavailable` where the last bootstrap began too short a time ago.
    fn may_make(&self, reason: Option<Reason>) -> Result<()> {
        let left = self.makings.left(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let why = reason.map_or_else(String::new, |reason| format!("{reason}; "));
        let message = format!(
            "{why}the last bootstrap began a short time ago, the next one does in {} s at the earliest",
            left.as_secs() + 1
        );
        Err(Error::new(ErrorKind::Unavailable, message).on(self.home.local.display()))
    }

    async fn image(&mut self) -> Result<Image> {
        self.makings.used(Instant::now());
        let (staging, output) = (self.home.dir.scratch(), &self.home.local);
        let image = Image::of_newest(&self.store, &self.layout, staging, output, &self.home.clock);
        let image = unless_stopped(&self.stop, image).await?;
        refuse_other_formats(image.catalog())?;
        Ok(image)
    }

    fn note_image(&mut self, reason: Option<Reason>, image: &Image, batch: &mut Batch) {
        batch.bootstrapped = Some(Bootstrapped {
            reason,
            files: image.segments() + 1,
            pages: u64::from(image.header().commit.0),
        });
        note_head(image.catalog(), batch);
        self.window = Some(Window::of(image.catalog(), image.header().range.max()));
        self.stuck = None;
    }
}
