//! Types as SQL, from a number and a modifier.

/// Bytes of a length that a modifier of a string or number type adds.
/// Spec: VARHDRSZ.
const HEADER: i32 = 4;

/// Spec: `typmodout` functions of PostgreSQL (varchartypmodout, numerictypmodout, timestamptypmodout, intervaltypmodout ...).
pub(super) fn with_modifier(oid: u32, name: &str, modifier: i32) -> Option<String> {
    let element = element_of(oid);
    if let Some(element) = element {
        let name = name.strip_suffix("[]")?;
        return Some(format!("{}[]", with_modifier(element, name, modifier)?));
    }
    if modifier < 0 {
        return Some(match oid {
            // `character` alone would be one character long, `bit` one bit.
            1042 => "bpchar".to_owned(),
            1560 => "\"bit\"".to_owned(),
            _ => name.to_owned(),
        });
    }
    Some(match oid {
        1042 => format!("character({})", modifier - HEADER),
        1043 => format!("character varying({})", modifier - HEADER),
        1560 => format!("bit({modifier})"),
        1562 => format!("bit varying({modifier})"),
        1700 => {
            let digits = modifier - HEADER;
            // The scale has eleven bits and a sign.
            let scale = ((digits & 0x7ff) ^ 1024) - 1024;
            format!("numeric({},{scale})", digits >> 16 & 0xffff)
        }
        1083 => format!("time({modifier}) without time zone"),
        1114 => format!("timestamp({modifier}) without time zone"),
        1184 => format!("timestamp({modifier}) with time zone"),
        1266 => format!("time({modifier}) with time zone"),
        1186 => interval(modifier)?,
        _ => return None,
    })
}

/// Fields in the upper half, the precision in the lower; all bits stand for none given.
fn interval(modifier: i32) -> Option<String> {
    let (fields, precision) = (modifier >> 16 & 0x7fff, modifier & 0xffff);
    if fields != 0x7fff {
        return None;
    }
    Some(if precision == 0xffff { "interval".to_owned() } else { format!("interval({precision})") })
}

/// Arrays whose elements have modifiers.
fn element_of(oid: u32) -> Option<u32> {
    Some(match oid {
        1014 => 1042,
        1015 => 1043,
        1561 => 1560,
        1563 => 1562,
        1231 => 1700,
        1183 => 1083,
        1115 => 1114,
        1185 => 1184,
        1270 => 1266,
        1187 => 1186,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers() {
        for (oid, name, modifier, expect) in [
            (23, "integer", -1, Some("integer")),
            (1043, "character varying", 24, Some("character varying(20)")),
            (1042, "character", 7, Some("character(3)")),
            (1042, "character", -1, Some("bpchar")),
            (1700, "numeric", 655_366, Some("numeric(10,2)")),
            (1700, "numeric", (5 << 16 | (-2 & 0x7ff)) + 4, Some("numeric(5,-2)")),
            (1231, "numeric[]", 655_366, Some("numeric(10,2)[]")),
            (1231, "numeric[]", -1, Some("numeric[]")),
            (1184, "timestamp with time zone", 3, Some("timestamp(3) with time zone")),
            (1186, "interval", 0x7fff_0003, Some("interval(3)")),
            (1186, "interval", 0x0004_ffff, None),
            (3802, "jsonb", 7, None),
        ] {
            assert_eq!(with_modifier(oid, name, modifier).as_deref(), expect, "{name} {modifier}");
        }
    }
}
