//! QR codes as inline SVG: black on white in every colour scheme, with the quiet zone that scanners need.
//!
//! Uses plain fill attributes instead of classes, so that a code can be scanned even if the style sheet did not load.
//! No XML prolog and no `style` attribute: the drawing is part of a page with a strict CSP.

use std::fmt::Write as _;

use minijinja::HtmlEscape;
use qrcode::{Color, EcLevel, QrCode};
use serde::Serialize;

/// Light modules on each side (ISO/IEC 18004 asks for four).
const QUIET_ZONE: usize = 4;

/// Why a code could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum QrError {
    #[error("the text does not fit into a QR code")]
    Encode(#[source] qrcode::types::QrError),
}

/// A drawing that can be put into a page unescaped; only [`QrSvg::draw`] makes one.
///
/// It contains the seed of a second factor, hence no `Debug`.
#[derive(Serialize)]
#[serde(transparent)]
pub struct QrSvg(String);

impl QrSvg {
    /// Encodes `text`; `label` is the text for screen readers.
    pub fn draw(text: &str, label: &str) -> Result<Self, QrError> {
        let code = QrCode::with_error_correction_level(text, EcLevel::M).map_err(QrError::Encode)?;
        let side = code.width() + 2 * QUIET_ZONE;
        let dark = dark_modules(&code);
        let label = HtmlEscape(label);
        Ok(Self(format!(
            r##"<svg class="qr" role="img" aria-label="{label}" viewBox="0 0 {side} {side}" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h{side}v{side}H0z"/><path fill="#000" d="{dark}"/></svg>"##
        )))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One path for all dark modules, with a rectangle per horizontal run.
fn dark_modules(code: &QrCode) -> String {
    let mut path = String::new();
    for (row, modules) in code.to_colors().chunks(code.width()).enumerate() {
        let mut column = 0;
        for run in modules.chunk_by(PartialEq::eq) {
            if run.first() == Some(&Color::Dark) {
                let (x, y, length) = (column + QUIET_ZONE, row + QUIET_ZONE, run.len());
                // Writing to a `String` cannot fail.
                let _ = write!(path, "M{x} {y}h{length}v1h-{length}z");
            }
            column += run.len();
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "otpauth://totp/IoT%20Connectivity:ada@example.com?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=IoT%20Connectivity&algorithm=SHA1&digits=6&period=30";

    /// Reads the rectangles back into a grid without the quiet zone.
    fn grid(svg: &str, width: usize) -> Vec<Color> {
        let mut modules = vec![Color::Light; width * width];
        let path = svg.split("fill=\"#000\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        for run in path.split('M').filter(|run| !run.is_empty()) {
            let numbers: Vec<usize> =
                run.split([' ', 'h', 'v', '-', 'z']).filter_map(|number| number.parse().ok()).collect();
            let [x, y, length, 1, back] = numbers[..] else { panic!("{run}") };
            assert_eq!(length, back);
            for module in x..x + length {
                modules[(y - QUIET_ZONE) * width + module - QUIET_ZONE] = Color::Dark;
            }
        }
        modules
    }

    #[test]
    fn the_drawing_has_the_modules_of_the_code() {
        let code = QrCode::with_error_correction_level(URI, EcLevel::M).unwrap();
        let svg = QrSvg::draw(URI, "QR code").unwrap();
        assert!(grid(svg.as_str(), code.width()) == code.to_colors());
    }

    #[test]
    fn the_drawing_suits_a_strict_policy_and_a_dark_page() {
        let svg = QrSvg::draw(URI, "QR code").unwrap();
        assert!(svg.as_str().starts_with("<svg "));
        assert!(!svg.as_str().contains("style"));
        assert!(svg.as_str().contains(r##"<path fill="#fff" d="M0 0h"##));
        assert!(svg.as_str().contains(r#"role="img" aria-label="QR code""#));
        assert!(!svg.as_str().contains("JBSWY3DP"));
    }

    #[test]
    fn a_hostile_label_stays_text() {
        let svg = QrSvg::draw("x", r#""><svg/onload=1>"#).unwrap();
        assert!(!svg.as_str().contains("<svg/onload"));
        assert!(!svg.as_str().contains(r#""">"#));
    }

    #[test]
    fn too_long_a_text_is_an_error() {
        assert!(QrSvg::draw(&"x".repeat(4000), "QR code").is_err());
    }
}
