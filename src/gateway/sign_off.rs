//! Sign-out at the portal: it ends our session as well.
//!
//! The origin of the request does not matter: the portal has carried it out by then, and leaving our session behind
//! would be worse.

use std::{net::IpAddr, sync::Arc};

use http::header;

use super::{SharedGateway, Site};
use crate::{
    login,
    sessions::Live,
    web::{clear_site_data, cookies, portal_fields::PortalFields},
};

/// Removes our cookies when the portal has logged the user out. The session ends with the response, not before, which
/// would cut it off.
pub(super) fn follow(fields: &mut PortalFields, site: &Site, shared: &SharedGateway) {
    let names = &site.shared.cookies;
    for name in [&names.session, &names.forms] {
        if let Some(cookie) = cookies::cleared(name) {
            fields.append(header::SET_COOKIE, cookie);
        }
    }
    if let Some(value) = &shared.clear_on_sign_out {
        fields.append(clear_site_data::NAME.clone(), value.clone());
    }
}

/// Ends the session of a request that has logged out at the portal.
pub(super) fn end(live: Arc<Live>, site: &Site, shared: &SharedGateway, client_ip: IpAddr, request_id: &str) {
    let (pages, source) = (
        Arc::clone(&site.shared.pages),
        login::Source {
            client_ip,
            user_agent: String::new(),
            request_id: request_id.to_owned(),
            replaces: None,
            user: None,
            known: None,
            certificate: None,
        },
    );
    shared.control.spawn(async move { pages.log_out(&live.session, &source).await });
}
