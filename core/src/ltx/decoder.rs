//! Reading a file from its first byte to its last.

use std::io::Read;

use super::page::{Page, PageReader};
use super::{DecodeError, Header, Verified, trailer};
use crate::types::PageNumber;

/// Reads a file: header, pages one by one, then the check of the whole.
///
/// Nothing that it gave may be used for good before [`Decoder::finish`]. Memory: a buffer of 64 KiB and
/// two pages, whatever the file says.
pub struct Decoder<R: Read> {
    header: Header,
    pages: PageReader<R>,
    ended: bool,
}

impl<R: Read> Decoder<R> {
    /// Reads the header of the file that `source` begins with.
    ///
    /// # Errors
    ///
    /// Those of [`Header::decode`].
    pub fn new(source: R) -> Result<Self, DecodeError> {
        let (header, pages) = PageReader::open(source)?;
        Ok(Self {
            header,
            pages,
            ended: false,
        })
    }

    /// The header. Not yet checked against the file checksum.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the next page to `data`, which becomes exactly one page long, or gives nothing at the end.
    ///
    /// # Errors
    ///
    /// A page that breaks a rule of the format; reading on makes no sense then.
    pub fn next_page(&mut self, data: &mut Vec<u8>) -> Result<Option<PageNumber>, DecodeError> {
        if self.ended {
            return Ok(None);
        }
        let number = self.pages.next(data)?;
        self.ended = number.is_none();
        Ok(number)
    }

    /// As [`Decoder::next_page`]; gives the page in a form that knows its sum for less.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::next_page`].
    pub fn next_summed<'a>(
        &mut self,
        data: &'a mut Vec<u8>,
    ) -> Result<Option<Page<'a>>, DecodeError> {
        let number = self.next_page(data)?;
        Ok(number.map(|number| self.pages.page(number, data)))
    }

    /// Reads what is left, pages included, and checks the file as a whole.
    ///
    /// # Errors
    ///
    /// Anything that is wrong with the file, bytes behind its end included.
    pub fn finish(mut self) -> Result<Verified, DecodeError> {
        let mut data = Vec::new();
        while self.next_page(&mut data)?.is_some() {}
        let (source, sum) = self.pages.into_parts();
        trailer::verify(self.header, &sum, source)
    }
}
