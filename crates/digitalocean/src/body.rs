//! Reads an answer's body, within bounds.

use reqwest::Response;

/// The largest answer that is read. A page of 200 Droplets has about 600 KiB.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection ended or stood still.
    #[error(transparent)]
    Cut(#[from] reqwest::Error),
    /// More than anything we ask for can have.
    #[error("the answer is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// The whole body.
pub async fn read(mut response: Response) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
