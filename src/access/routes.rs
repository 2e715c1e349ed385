//! The routes of a site: which server a path goes to, by the same readings that the rules use.

use super::{
    pattern::{AccessPath, Fit},
    readings::{Reader, Reading, Readings},
};

/// The paths of each route. The first route that matches wins.
#[derive(Clone, Debug, Default)]
pub struct PathRoutes(Vec<Vec<AccessPath>>);

impl PathRoutes {
    pub fn new(routes: Vec<Vec<AccessPath>>) -> Self {
        Self(routes)
    }

    /// The route of a path. `None` if it matches no route, or not in every reading: the portal's own servers get the
    /// request. The rules decide whether it gets through at all, for all servers alike.
    pub fn of(&self, path: &str) -> Option<usize> {
        if self.0.is_empty() {
            return None;
        }
        let readings = Readings::of(path);
        self.0.iter().position(|route| {
            let takes =
                |path: &[u8], by: Reader| route.iter().any(|known| known.fit(path, by) == Fit::Exactly);
            match &readings {
                Readings::Plain(path) => takes(path, Reader::default()),
                Readings::Several(all) => all.iter().all(|Reading { path, by }| takes(path, *by)),
                Readings::Any => false,
            }
        })
    }

    /// The earlier route that matches every path of this one, if there is one.
    pub fn cover_of(&self, index: usize) -> Option<usize> {
        let paths = self.0.get(index)?;
        let covers = |earlier: &Vec<AccessPath>| {
            paths.iter().all(|path| earlier.iter().any(|known| known.covers(path)))
        };
        self.0.iter().take(index).position(covers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(routes: &[&[&str]]) -> PathRoutes {
        let parse = |paths: &&[&str]| paths.iter().map(|path| AccessPath::parse(path).unwrap()).collect();
        PathRoutes::new(routes.iter().map(parse).collect())
    }

    #[test]
    fn a_path_takes_a_route_when_all_portals_agree_that_it_does() {
        let routes = routes(&[&["/api/v2/*"], &["/api/*", "/status"], &["/a b/*"]]);
        for (path, route) in [
            ("/api/v2/sims", Some(0)),
            ("/api/sims", Some(1)),
            ("/api/", Some(1)),
            ("/status", Some(1)),
            ("/a%20b/c", Some(2)),
            ("/ap%69/sims", Some(1)),
            // All readings are below it.
            ("/api/a;b=c", Some(1)),
            ("/api/a//b", Some(1)),
            ("/api/a%2fb", Some(1)),
            // Some readings are not.
            ("/api/..%2fadmin", None),
            ("/api%2fsims", None),
            ("/x/..%2fapi/sims", None),
            ("//api/sims", None),
            ("/api;v=2/sims", None),
            ("/api%5csims", None),
            ("/API/sims", None),
            ("/api", None),
            ("/apis", None),
            ("/status/", None),
            ("/", None),
            // One reading is below the first route, all are below the second.
            ("/api/v2%2fsims", Some(1)),
            ("/api/v2;x/sims", Some(1)),
        ] {
            assert_eq!(routes.of(path), route, "{path}");
        }
        assert_eq!(PathRoutes::default().of("/api/x"), None);
    }

    #[test]
    fn a_route_that_an_earlier_one_covers_is_found() {
        let routes = routes(&[&["/a/*"], &["/b"], &["/a/b/*", "/a/c"], &["/a/x", "/c"]]);
        assert_eq!(
            (0..4).map(|index| routes.cover_of(index)).collect::<Vec<_>>(),
            [None, None, Some(0), None]
        );
    }
}
