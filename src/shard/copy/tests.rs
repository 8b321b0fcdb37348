use super::*;
use proptest::prelude::*;

const ROW_MAX: usize = 1 << 20;

/// All parts of data that comes in chunks of these sizes, in turn.
fn parts(layout: &CopyLayout, key: &[usize], data: &[u8], chunks: &[usize]) -> Result<Vec<CopyPart>, CopyDataError> {
    let mut splitter = CopySplitter::new(layout.clone(), key.to_vec(), ROW_MAX);
    let (mut found, mut rest) = (Vec::new(), data);
    for size in chunks.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, behind) = rest.split_at((*size).clamp(1, rest.len()));
        rest = behind;
        splitter.push(chunk);
        while let Some(part) = splitter.next_part()? {
            found.push(part);
        }
    }
    splitter.finish();
    while let Some(part) = splitter.next_part()? {
        found.push(part);
    }
    Ok(found)
}

/// Parts in short: `H` header, `T` trailer, rows as their key's values between `|`; `~` is NULL, `?` an unknown key.
fn shown(parts: &[CopyPart]) -> Vec<String> {
    let field = |field: &CopyField| field.as_ref().map_or("~".to_owned(), |value| String::from_utf8_lossy(value).into_owned());
    let show = |part: &CopyPart| match part {
        CopyPart::Header(_) => "H".to_owned(),
        CopyPart::Trailer(_) => "T".to_owned(),
        CopyPart::Row { key: None, .. } => "?".to_owned(),
        CopyPart::Row { key: Some(key), .. } => key.iter().map(field).collect::<Vec<_>>().join("|"),
    };
    parts.iter().map(show).collect()
}

fn bytes_of(parts: &[CopyPart]) -> Vec<u8> {
    let bytes = parts.iter().flat_map(|part| match part {
        CopyPart::Header(bytes) | CopyPart::Trailer(bytes) | CopyPart::Row { bytes, .. } => bytes.iter().copied(),
    });
    bytes.collect()
}

fn check(layout: &CopyLayout, key: &[usize], data: &str, expect: &[&str]) {
    for size in [1, 2, 3, 5, 1000] {
        let parts = parts(layout, key, data.as_bytes(), &[size]).unwrap();
        assert_eq!(shown(&parts), expect, "{data:?} in chunks of {size}");
        let kept = String::from_utf8(bytes_of(&parts)).unwrap();
        assert!(data.starts_with(&kept), "{data:?} became {kept:?}");
    }
}

fn text() -> CopyLayout {
    CopyLayout::Text(TextLayout::default())
}

fn csv() -> CopyLayout {
    CopyLayout::Csv(CsvLayout::default())
}

#[test]
fn lines_are_counted() {
    let check = |layout: &CopyLayout, row: &str, expect: u64| {
        assert_eq!(lines_of(row.as_bytes(), layout, (false, false)), expect, "{row:?}");
    };
    let check_first = |row: &str, expect: u64| assert_eq!(lines_of(row.as_bytes(), &csv(), (true, false)), expect, "{row:?}");
    check_first("a\n", 1);
    check_first("\"a\nb\"\n", 1);
    check_first("\"a\r\nb\"\r\n", 2);
    check_first("\"a\rb\"\n", 2);
    check_first("\"a\rb\"", 2);
    assert_eq!(lines_of(b"\"a\nb\n", &csv(), (false, true)), 3);
    assert_eq!(lines_of(b"\"a\nb\n", &csv(), (true, true)), 1);
    check(&text(), "a\tb\n", 1);
    check(&text(), "a\\\nb\n", 1);
    check(&csv(), "a,b\n", 1);
    check(&csv(), "\"a\nb\",c\n", 2);
    check(&csv(), "\"a\nb\",c\r\n", 1);
    check(&csv(), "\"a\r\nb\",c\r\n", 2);
    check(&csv(), "\"a\n\n\",c", 3);
    check(&CopyLayout::Binary, "\n\n\n", 1);
}

#[test]
fn lines_of_text() {
    check(&text(), &[0], "1\ta\n2\tb\n", &["1", "2"]);
    check(&text(), &[1, 0], "1\ta\n2\tb", &["a|1", "b|2"]);
    check(&text(), &[0], "1\r\n2\r\n", &["1", "2"]);
    check(&text(), &[0], "1\r2\r", &["1", "2"]);
    check(&text(), &[0], "", &[]);
    check(&text(), &[0], "\n\n", &["", ""]);
    check(&text(), &[0], "\\N\n\\\\N\nN\n", &["~", "\\N", "N"]);
    check(&text(), &[0], "a\\tb\\\tc\\\nd\\x41\\101\\q\\7z\tx\n", &["a\tb\tc\ndAAq\u{7}z"]);
    check(&text(), &[2], "1\ta\n", &["?"]);
    check(&text(), &[0], "1\n\\.\n2\n", &["1"]);
    check(&text(), &[0], "1\nx\\.\n2\n", &["1", "x"]);
    check(&text(), &[0], "1\n\\.", &["1"]);
    check(&text(), &[0], "1\r\n\\.\r\n2\r\n", &["1"]);
    check(&text(), &[0], "1\\.5\n2\n", &["1.5", "2"]);
    check(&text(), &[0], "a\\\\\nb\n", &["a\\", "b"]);
    let pipes = CopyLayout::Text(TextLayout { delimiter: b'|', null: b"-".to_vec(), header: true });
    check(&pipes, &[1], "a|b\n1|-\n2|x\\|y\n", &["H", "~", "x|y"]);
}

#[test]
fn lines_of_csv() {
    check(&csv(), &[0], "1,a\n2,b\n", &["1", "2"]);
    check(&csv(), &[1], "1,\"a\nb,\"\"c\"\"\"\n2,b\n", &["a\nb,\"c\"", "b"]);
    check(&csv(), &[1], "1,\n2,\"\"\n3,x\"y z\"w\n", &["~", "", "xy zw"]);
    check(&csv(), &[0], "\\.\nx\n", &[]);
    check(&csv(), &[0], "\\.x\n\"\\.\"\n", &["\\.x", "\\."]);
    check(&csv(), &[0], "a\r\n\"b\r\nc\"\r\n", &["a", "b\r\nc"]);
    check(&csv(), &[0], "a\n\"open\n", &["a", "?"]);
    check(&csv(), &[1], "a\n", &["?"]);
    let other = CopyLayout::Csv(CsvLayout {
        delimiter: b';',
        quote: b'\'',
        escape: b'\\',
        null: b"none".to_vec(),
        header: true,
        force_null: vec![0],
        force_not_null: vec![1],
    });
    check(&other, &[0, 1], "x;y\n'it\\'s;\\\\';'none'\n'none';none\nnone;'a\\b'\n", &["H", "it's;\\|none", "~|none", "~|a\\b"]);
}

#[test]
fn line_ends_must_be_alike() {
    let check = |layout: &CopyLayout, data: &str, carriage_return: bool| {
        let csv = matches!(layout, CopyLayout::Csv(_));
        let expect = CopyDataError::MixedLineEnds(MixedLineEnd { carriage_return, csv });
        for size in [1, 2, 1000] {
            assert_eq!(parts(layout, &[0], data.as_bytes(), &[size]), Err(expect), "{data:?}");
        }
    };
    check(&text(), "1\n2\r\n", true);
    check(&text(), "1\r\n2\n", false);
    check(&text(), "1\r2\n", false);
    check(&csv(), "1\n2\r3\n", true);
    check(&csv(), "1\r\n2\n", false);
}

fn binary(tuples: &[&[Option<&[u8]>]], trailer: bool) -> Vec<u8> {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02xx".to_vec();
    for tuple in tuples {
        data.extend((tuple.len() as u16).to_be_bytes());
        for field in *tuple {
            data.extend(field.map_or(-1, |field| field.len() as i32).to_be_bytes());
            data.extend(field.unwrap_or_default());
        }
    }
    if trailer {
        data.extend([0xff, 0xff]);
    }
    data
}

#[test]
fn tuples_of_the_binary_format() {
    let tuples: [&[Option<&[u8]>]; 3] = [&[Some(b"a"), None], &[None, Some(b"\n\\.")], &[Some(b"")]];
    for trailer in [true, false] {
        let data = binary(&tuples, trailer);
        for size in [1, 2, 7, 1000] {
            let parts = parts(&CopyLayout::Binary, &[1, 0], &data, &[size]).unwrap();
            let expect: &[&str] = &["H", "~|a", "\n\\.|~", "?", "T"];
            assert_eq!(shown(&parts), expect[..4 + usize::from(trailer)]);
            assert_eq!(bytes_of(&parts), data);
        }
    }
    let mut cut = binary(&tuples, false);
    cut.truncate(cut.len() - 2);
    assert_eq!(shown(&parts(&CopyLayout::Binary, &[0], &cut, &[4]).unwrap()), ["H", "a", "~", "?"]);
    assert_eq!(parts(&CopyLayout::Binary, &[0], b"1\t2\n", &[1]), Err(CopyDataError::Signature));
    let behind = [binary(&[], true), b"x".to_vec()].concat();
    assert_eq!(parts(&CopyLayout::Binary, &[0], &behind, &[1]), Err(CopyDataError::BehindEnd));
}

#[test]
fn rows_are_bounded() {
    let mut splitter = CopySplitter::new(text(), vec![0], 10);
    splitter.push(b"12345678901");
    assert_eq!(splitter.next_part(), Err(CopyDataError::RowTooLong { limit: 10 }));
    let mut splitter = CopySplitter::new(text(), vec![0], 10);
    splitter.push(b"1234567\n1234567\n");
    assert!(matches!(splitter.next_part(), Ok(Some(CopyPart::Row { .. }))));
}

proptest! {
    #[test]
    fn where_chunks_are_cut_does_not_matter(
        data in "[ab,;\t\n\"'\\\\.N]{0,60}",
        chunks in prop::collection::vec(1usize..9, 1..6),
        is_csv: bool,
        header: bool,
        backslash: bool,
    ) {
        let escape = if backslash { b'\\' } else { b'"' };
        let layout = match is_csv {
            true => CopyLayout::Csv(CsvLayout { header, escape, ..CsvLayout::default() }),
            false => CopyLayout::Text(TextLayout { header, ..TextLayout::default() }),
        };
        let whole = parts(&layout, &[1, 0], data.as_bytes(), &[1000]);
        prop_assert_eq!(&parts(&layout, &[1, 0], data.as_bytes(), &chunks), &whole);
        if let Ok(parts) = whole {
            prop_assert!(data.as_bytes().starts_with(&bytes_of(&parts)));
        }
    }

    #[test]
    fn no_data_causes_a_panic(data: Vec<u8>, chunks in prop::collection::vec(1usize..9, 1..6)) {
        for layout in [text(), csv(), CopyLayout::Binary] {
            let _ = parts(&layout, &[3, 0], &data, &chunks);
        }
        let signed = [binary(&[], false), data].concat();
        let _ = parts(&CopyLayout::Binary, &[3, 0], &signed, &chunks);
    }

    #[test]
    fn fields_come_back(rows in prop::collection::vec(("[a,\"\n\r\\\\]{0,6}", prop::option::of("[a\t,\"\n\\\\]{0,6}")), 1..8)) {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
        let csv_data: String =
            rows.iter().map(|(one, two)| format!("{},{}\n", quoted(one), two.as_ref().map_or(String::new(), |two| quoted(two)))).collect();
        let text_data: String = rows
            .iter()
            .map(|(one, two)| format!("{}\t{}\n", escaped(one), two.as_ref().map_or("\\N".to_owned(), |two| escaped(two))))
            .collect();
        let bytes = |text: &String| text.clone().into_bytes();
        let expect: Vec<Vec<CopyField>> = rows.iter().map(|(one, two)| vec![two.as_ref().map(bytes), Some(bytes(one))]).collect();
        for (layout, data) in [(csv(), csv_data), (text(), text_data)] {
            let keys: Vec<Vec<CopyField>> = parts(&layout, &[1, 0], data.as_bytes(), &[3])
                .unwrap()
                .into_iter()
                .map(|part| match part {
                    CopyPart::Row { key: Some(key), .. } => key,
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(&keys, &expect, "{}", data);
        }
    }
}
