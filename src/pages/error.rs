//! Why a page cannot be served.

use std::time::Duration;

use super::qr::QrError;
use crate::{
    account::AccountError, by_mail::ByMailError, database::DatabaseError, login::LoginError, web::form,
};

/// Why a page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error("the form was not sent as application/x-www-form-urlencoded")]
    FormType,
    #[error("the form did not arrive")]
    FormBody(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("malformed form")]
    Form(#[source] form::Malformed),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    ByMail(#[from] ByMailError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("cannot look up the saved form")]
    SavedForm(#[from] DatabaseError),
    #[error("cannot hand a session over from one site to another")]
    HandOver(#[source] DatabaseError),
    #[error("too many page requests by this user")]
    TooOften(Duration),
    #[error("cannot draw the QR code")]
    Qr(#[source] QrError),
}
