//! What the notice in the portal's pages asks and leads to (`web::session_notice`): how long the session lasts, one more use of it,
//! and the page at the end of a login that was made beside another page.

use http::StatusCode;
use serde::Serialize;

use super::{PageError, Pages, route::paths, views::View, visit::Visit};
use crate::{
    login::LoginError,
    web::{
        answer::{self, Answer},
        return_to::ReturnTo,
    },
};

/// What the script is told. Times are in seconds from now: nobody's clock matters.
#[derive(Serialize)]
#[serde(untagged)]
enum Standing<'a> {
    In { signed_in: bool, user: &'a str, idle_in: u64, ends_in: u64 },
    Out { signed_in: bool },
}

impl Pages {
    /// Whether there is a session, whose, and for how long.
    pub(super) async fn standing(&self, visit: &Visit) -> Result<Answer, PageError> {
        let Some(live) = &visit.session else {
            return Ok(answer::json(StatusCode::OK, &Standing::Out { signed_in: false }));
        };
        let left = self.login.sessions.left(live).await.map_err(LoginError::from)?;
        let standing = Standing::In {
            signed_in: true,
            user: &live.session.name,
            idle_in: left.unused.as_secs(),
            ends_in: left.whole.as_secs(),
        };
        Ok(answer::json(StatusCode::OK, &standing))
    }

    /// Somebody is still there. The request was the use.
    pub(super) async fn post_stay(&self, visit: &Visit) -> Result<Answer, PageError> {
        if visit.is_from(&self.origin) {
            self.standing(visit).await
        } else {
            Ok(self.message_page(StatusCode::FORBIDDEN, &visit.request_id))
        }
    }

    /// The end of a login beside another page.
    pub(super) fn show_signed_in(&self, visit: &Visit) -> Answer {
        if visit.session.is_none() {
            let path = ReturnTo::parse(paths::SIGNED_IN).append_to(paths::LOGIN);
            return answer::redirect(StatusCode::FOUND, &path);
        }
        answer::html(StatusCode::OK, self.templates.render(&View::SignedIn))
    }
}
