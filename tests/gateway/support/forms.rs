//! Pages as people use them: a form is sent with what stands in it, to where it says, and redirects are followed. A
//! browser that would leave the site fails the test.

use super::{Answer, Browser, PASSWORD, browser::unescape, phone::Phone};

/// One form of a page.
#[derive(Clone, Debug)]
pub(crate) struct PageForm {
    pub(crate) action: String,
    /// Names and values of the inputs as the page shows them.
    pub(crate) inputs: Vec<(String, String)>,
    /// Boxes that are not ticked: sent only when a test ticks them.
    unticked: Vec<(String, String)>,
}

impl PageForm {
    fn parse(html: &str) -> Self {
        let (tag, inside) = html.split_once('>').expect("a tag ends");
        assert_eq!(attribute(tag, "method").as_deref(), Some("post"), "{tag}");
        let (mut inputs, mut unticked) = (Vec::new(), Vec::new());
        for input in inside.split("<input").skip(1) {
            let tag = input.split('>').next().unwrap_or_default();
            let name = attribute(tag, "name").expect("an input has a name");
            let is_box = attribute(tag, "type").as_deref() == Some("checkbox");
            let kind = if is_box && !tag.ends_with(" checked") { &mut unticked } else { &mut inputs };
            kind.push((name, attribute(tag, "value").unwrap_or_default()));
        }
        Self { action: attribute(tag, "action").expect("a form has an action"), inputs, unticked }
    }

    fn has(&self, name: &str) -> bool {
        self.inputs.iter().chain(&self.unticked).any(|(known, _)| known == name)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.inputs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What is sent when these fields are filled in.
    pub(crate) fn filled<'a>(&'a self, fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let typed = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|&(_, value)| value);
        let shown = self.inputs.iter().map(|(name, shown)| (name.as_str(), typed(name).unwrap_or(shown)));
        let ticked = self.unticked.iter().filter_map(|(name, _)| Some((name.as_str(), typed(name)?)));
        shown.chain(ticked).collect()
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    Some(unescape(rest.split_once('"').expect("a value ends").0))
}

impl Answer {
    pub(crate) fn forms(&self) -> Vec<PageForm> {
        let text = self.text();
        let forms = text.split("<form").skip(1);
        forms.map(|rest| PageForm::parse(rest.split("</form>").next().unwrap_or_default())).collect()
    }

    /// The form that has these fields.
    #[track_caller]
    pub(crate) fn form(&self, fields: &[&str]) -> PageForm {
        let mut forms = self.forms().into_iter();
        let found = forms.find(|form| fields.iter().all(|field| form.has(field)));
        found.unwrap_or_else(|| panic!("no form with {fields:?}: {} {}", self.status, self.text()))
    }

    pub(crate) fn has_form(&self, field: &str) -> bool {
        self.forms().iter().any(|form| form.has(field))
    }

    /// The page's heading.
    pub(crate) fn heading(&self) -> String {
        let text = self.text();
        let heading = text.split_once("<h1>").and_then(|(_, rest)| rest.split_once("</h1>"));
        heading.map(|(heading, _)| unescape(heading)).unwrap_or_default()
    }

    /// Whether the answer gives the browser a session.
    pub(crate) fn starts_session(&self) -> bool {
        self.set_cookies().iter().any(|cookie| cookie.starts_with("__Host-portcullis="))
    }

    pub(crate) fn set_cookies(&self) -> Vec<String> {
        let lines = self.headers.get_all("set-cookie").iter();
        lines.map(|line| line.to_str().expect("a cookie is text").to_owned()).collect()
    }
}

impl Browser {
    /// Goes to a page of the site, wherever that leads.
    pub(crate) async fn visit(&self, path: &str) -> Answer {
        let answer = self.get(path).await;
        self.follow(answer).await
    }

    /// Follows redirects until there is a page.
    pub(crate) async fn follow(&self, mut answer: Answer) -> Answer {
        for _ in 0..8 {
            if !answer.status.is_redirection() {
                return answer;
            }
            let to = answer.location();
            assert!(to.starts_with('/') && !to.starts_with("//") && !to.starts_with("/\\"), "leads to {to}");
            answer = self.get(&to).await;
        }
        panic!("the redirects never end: {answer:?}")
    }

    /// Fills the form that has these fields in, and sends it. The answer is not followed.
    pub(crate) async fn fill(&self, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        let names: Vec<&str> = fields.iter().map(|&(name, _)| name).collect();
        let form = page.form(&names);
        self.post_form(&form.action, &form.filled(fields)).await
    }

    /// Fills the form that has these fields in, sends it, and goes where the answer leads.
    pub(crate) async fn submit(&self, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        let answer = self.fill(page, fields).await;
        self.follow(answer).await
    }

    /// Gives e-mail and [`PASSWORD`] on a login page, and goes on to the next one.
    pub(crate) async fn sign_in(&self, page: &Answer, email: &str) -> Answer {
        self.submit(page, &[("email", email), ("password", PASSWORD)]).await
    }

    /// Binds a new phone on an enrolment page, and goes on to the next one.
    pub(crate) async fn bind(&self, page: &Answer, email: &str, device_name: &str) -> Answer {
        let phone = self.scan(page, email);
        self.submit(page, &[("code", &phone.fresh_code()), ("device_name", device_name)]).await
    }

    /// Takes the key of an enrolment page into a new phone, which is the user's from then on.
    pub(crate) fn scan(&self, page: &Answer, email: &str) -> Phone {
        let phone = Phone::new(self.clock(), &page.text_of("key"));
        self.phones().lock().unwrap().insert(email.to_owned(), phone.clone());
        phone
    }

    /// Asks for `target`, and signs in with whatever that takes. Answers the page where it all ends.
    pub(crate) async fn log_in_to(&self, target: &str, email: &str) -> Answer {
        let page = self.visit(target).await;
        let page = self.sign_in(&page, email).await;
        if page.has_form("device_name") {
            let page = self.bind(&page, email, "Phone").await;
            assert_eq!(page.heading(), "Save your recovery codes", "{}", page.text());
            return self.submit(&page, &[]).await;
        }
        let phone = self.phone(email).expect("the user has enrolled in this test");
        self.submit(&page, &[("code", &phone.fresh_code())]).await
    }

    /// What the gateway says of the session, if there is one.
    pub(crate) async fn whoami(&self) -> Option<serde_json::Value> {
        let answer = self.fetch("/.portcullis/whoami").await;
        match answer.status.as_u16() {
            200 => Some(answer.json()),
            401 => None,
            _ => panic!("{answer:?}"),
        }
    }

    /// The level of the session, or `none`.
    pub(crate) async fn level(&self) -> String {
        let who = self.whoami().await;
        who.map_or_else(|| "none".to_owned(), |who| who["level"].as_str().unwrap().to_owned())
    }
}
