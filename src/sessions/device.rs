//! Describes a browser in plain words. Only for display: nothing is decided by it.

use super::Origin;

impl Origin {
    /// The browser and the system, if they are common ones; else what the client says.
    pub fn device(&self) -> String {
        match self.known_device() {
            Some(known) => known,
            None if self.user_agent.is_empty() => "Unknown program".to_owned(),
            None => self.user_agent.clone(),
        }
    }

    /// The same in words that are all ours; `None` for an uncommon browser.
    pub fn known_device(&self) -> Option<String> {
        const BROWSERS: [(&str, &str); 6] = [
            ("Edg", "Edge"),
            ("OPR/", "Opera"),
            ("Firefox/", "Firefox"),
            ("SamsungBrowser/", "Samsung Internet"),
            ("Chrome/", "Chrome"),
            ("Safari/", "Safari"),
        ];
        const SYSTEMS: [(&str, &str); 6] = [
            ("Windows", "Windows"),
            ("Android", "Android"),
            ("iPhone", "iPhone"),
            ("iPad", "iPad"),
            ("Mac OS X", "macOS"),
            ("Linux", "Linux"),
        ];
        let find = |known: &[(&str, &'static str)]| {
            known.iter().find(|(mark, _)| self.user_agent.contains(mark)).map(|(_, name)| *name)
        };
        let browser = find(&BROWSERS)?;
        Some(find(&SYSTEMS).map_or_else(|| browser.to_owned(), |system| format!("{browser} on {system}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(agent: &str) -> String {
        Origin::new([127, 0, 0, 1].into(), agent).device()
    }

    #[test]
    fn usual_browsers_are_called_by_their_names() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";
        let edge = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0";
        let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Version/19.0 Safari/604.1";
        assert_eq!(device(chrome), "Chrome on Linux");
        assert_eq!(device(edge), "Edge on Windows");
        assert_eq!(device(phone), "Safari on iPhone");
        assert_eq!(device("curl/8.1"), "curl/8.1");
        assert_eq!(device(""), "Unknown program");
    }
}
