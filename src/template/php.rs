//! Numbers as the text PHP's string cast makes of them (precision 14): what legacy clients expect to see in a message.
//! Pure functions, on any thread. The table in the test was printed by PHP 8.2.

/// 39.8 → `39.8`, 10.0 → `10`, 1e25 → `1.0E+25`.
pub fn float(value: f64) -> String {
    // Rounding to 14 significant digits comes first, because it can carry into the exponent that picks the notation.
    let scientific = format!("{value:.13e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if let -4..=13 = exponent {
        let decimals = usize::try_from(13 - exponent).unwrap_or(0);
        return without_zeros(&format!("{value:.decimals$}")).to_owned();
    }
    let mantissa = without_zeros(mantissa);
    let point = if mantissa.contains('.') { "" } else { ".0" };
    format!("{mantissa}{point}E{exponent:+}")
}

fn without_zeros(decimal: &str) -> &str {
    if decimal.contains('.') {
        decimal.trim_end_matches('0').trim_end_matches('.')
    } else {
        decimal
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    /// `php -r 'foreach ($argv as $s) echo (string)(float)$s;'` with precision = 14.
    const PRINTED_BY_PHP: &[(f64, &str)] = &[
        (0.0, "0"),
        (-0.0, "-0"),
        (39.8, "39.8"),
        (-39.8, "-39.8"),
        (10.0, "10"),
        (100000.0, "100000"),
        (2.5, "2.5"),
        (0.1, "0.1"),
        (0.30000000000000004, "0.3"),
        (123456.789, "123456.789"),
        (1.234_567_890_123_456_7, "1.2345678901235"),
        (0.0001, "0.0001"),
        (0.000123456789, "0.000123456789"),
        (0.000_123_456_789_012_345_67, "0.00012345678901235"),
        (0.00001, "1.0E-5"),
        (1e-7, "1.0E-7"),
        (1.25e-10, "1.25E-10"),
        (12345678901234.0, "12345678901234"),
        (12345678901234.5, "12345678901234"),
        (12345678901235.5, "12345678901236"),
        (99999999999999.0, "99999999999999"),
        (99999999999999.5, "1.0E+14"),
        (1e14, "1.0E+14"),
        (123456789012345.0, "1.2345678901234E+14"),
        (999999999999999.0, "1.0E+15"),
        (9223372036854775808.0, "9.2233720368548E+18"),
        (18446744073709551615.0, "1.844674407371E+19"),
        (1e25, "1.0E+25"),
        (-1e25, "-1.0E+25"),
        (1e100, "1.0E+100"),
        (1.5e300, "1.5E+300"),
        (5e-324, "4.9406564584125E-324"),
    ];

    #[test]
    fn a_float_becomes_the_text_that_php_prints() {
        for (value, text) in PRINTED_BY_PHP {
            assert_eq!(float(*value), *text, "{value:e}");
        }
    }
}
