//! A person with one browser at two sites: follows redirects, and pages that lead on by themselves, from one to the other.

use http::Request;

use super::TwoSites;
use crate::support::{ADA, Answer, Browser, HOST, OTHER_HOST, PASSWORD, empty};

/// One browser, whose cookies are kept for each host apart.
pub(crate) struct Person {
    pub(crate) first: Browser,
    pub(crate) second: Browser,
}

/// A way that a browser was led.
pub(crate) struct Walk {
    /// The addresses, the one asked for first.
    pub(crate) steps: Vec<String>,
    pub(crate) answer: Answer,
    /// How many of the answers were pages.
    pub(crate) pages: usize,
}

impl TwoSites {
    pub(crate) fn person(&self) -> Person {
        let [first, second] = self.browsers();
        Person { first, second }
    }

    /// Ada, who is in at both sites.
    pub(crate) async fn signed_in(&self) -> Person {
        let person = self.person();
        person.first.log_in(ADA).await;
        let walk = person.visit(OTHER_HOST, "/").await;
        assert!(person.second.cookie("__Host-portcullis").is_some(), "{:?}", walk.steps);
        person
    }
}

/// Where an answer leads by itself.
fn leads(answer: &Answer) -> Option<String> {
    if answer.status.is_redirection() {
        return Some(answer.location());
    }
    let text = answer.text();
    let (_, rest) = text.split_once("http-equiv=\"refresh\" content=\"0; url=")?;
    Some(rest.split_once('"')?.0.replace("&#x2f;", "/").replace("&amp;", "&").replace("&#x27;", "'"))
}

impl Person {
    fn at(&self, url: &str) -> (&Browser, String) {
        let rest = url.strip_prefix("https://").unwrap_or_else(|| panic!("{url}"));
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let browser = match host {
            HOST => &self.first,
            OTHER_HOST => &self.second,
            _ => panic!("led to {url}"),
        };
        (browser, path.to_owned())
    }

    pub(crate) async fn visit(&self, host: &str, path: &str) -> Walk {
        self.visit_url(&format!("https://{host}{path}")).await
    }

    pub(crate) async fn visit_url(&self, url: &str) -> Walk {
        self.walk(url.to_owned(), None).await
    }

    /// `from` is the page of ours whose form has led here.
    async fn walk(&self, mut url: String, from: Option<String>) -> Walk {
        let mut walk: Option<Walk> = None;
        for _ in 0..12 {
            let (browser, path) = self.at(&url);
            let mut request = Request::get(&path)
                .header("sec-fetch-mode", "navigate")
                .header("sec-fetch-dest", "document")
                .header("accept", "text/html,*/*;q=0.8");
            if let Some(from) = from.as_ref().filter(|from| self.at(from).0.host() == browser.host()) {
                request = request.header("referer", from);
            }
            let answer = browser.send(request.body(empty()).unwrap()).await;
            let origin = format!("https://{}", browser.host());
            let (mut steps, pages) = walk.map_or_else(Default::default, |walk| (walk.steps, walk.pages));
            steps.push(url.clone());
            let pages = pages + usize::from(!answer.status.is_redirection());
            let next = leads(&answer);
            walk = Some(Walk { steps, answer, pages });
            let Some(next) = next else { break };
            url = if next.starts_with('/') { format!("{origin}{next}") } else { next };
        }
        let walk = walk.unwrap();
        assert!(leads(&walk.answer).is_none(), "it never ends: {:?}", walk.steps);
        walk
    }

    /// Fills in the form that has these fields, and goes where that leads.
    pub(crate) async fn submit(&self, page: &Walk, fields: &[(&str, &str)]) -> Walk {
        let here = page.steps.last().unwrap().clone();
        let (browser, _) = self.at(&here);
        let answer = browser.fill(&page.answer, fields).await;
        match leads(&answer) {
            Some(next) => {
                let url =
                    if next.starts_with('/') { format!("https://{}{next}", browser.host()) } else { next };
                self.walk(url, Some(here)).await
            }
            None => Walk { steps: vec![here], answer, pages: 1 },
        }
    }

    /// Signs in on the page that a way has led to, with whatever that takes.
    pub(crate) async fn log_in(&self, page: Walk, email: &str) -> Walk {
        let page = self.submit(&page, &[("email", email), ("password", PASSWORD)]).await;
        if page.answer.has_form("device_name") {
            return self.bind(page, email).await;
        }
        let phone = self.first.phone(email).expect("the user has enrolled in this test");
        self.submit(&page, &[("code", &phone.fresh_code())]).await
    }

    /// Binds a phone on an enrolment page, and stores the recovery codes unread.
    pub(crate) async fn bind(&self, page: Walk, email: &str) -> Walk {
        let phone = self.first.scan(&page.answer, email);
        let page = self.submit(&page, &[("code", &phone.fresh_code()), ("device_name", "Phone")]).await;
        assert_eq!(page.answer.heading(), "Save your recovery codes", "{}", page.answer.text());
        self.submit(&page, &[]).await
    }
}
