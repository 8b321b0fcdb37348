//! Tables for terminals.

/// Columns under their headings; numbers to the right. `rows` are as long as `headings`.
pub(super) fn aligned(headings: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |index: usize| rows.iter().filter_map(move |row| row.get(index));
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(index, heading)| cells(index).map(|cell| width(cell)).max().unwrap_or(0).max(width(heading)))
        .collect();
    let numeric: Vec<bool> = (0..headings.len())
        .map(|index| {
            let is_number = |cell: &String| cell.is_empty() || cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit());
            cells(index).all(|cell| is_number(cell) && !cell.contains([':', '/'])) && cells(index).any(|cell| !cell.is_empty())
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let fill = " ".repeat(widths[index].saturating_sub(width(cell)));
            let (before, after) = if numeric[index] { (fill.as_str(), "") } else { ("", fill.as_str()) };
            text.push_str(&format!("  {before}{cell}{after}"));
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(headings.to_vec())];
    lines.extend(rows.iter().map(|row| {
        let filled = (0..headings.len()).map(|index| row.get(index).map_or("", String::as_str));
        line(filled.collect())
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_left_and_numbers_right() {
        let rows = [["primary", "7", "10.0.0.1:1"], ["ä", "1234", ""]].map(|row| row.map(str::to_owned).to_vec());
        let expect = "  host     in flight  address\n  primary          7  10.0.0.1:1\n  ä             1234";
        assert_eq!(aligned(&["host", "in flight", "address"], &rows), expect);
        assert_eq!(aligned(&["a", "b"], &[]), "  a  b");
        assert_eq!(aligned(&["a", "b"], &[vec!["x".into()]]), "  a  b\n  x");
    }
}
