-- What the ETL's SQL calls beside functions that all engines have. macros.py puts a macro's text in place of each call
-- and translates it for the engine; where an engine needs a text of its own, the macro's name ends with the engine's.

-- An id that the row has in every run: the tag (0 to 15) tells sources of one table apart.
CREATE MACRO event_id(row_id, tag) AS CAST(row_id AS BIGINT) * 16 + tag;

-- event_id where one row gives several: the first (nth 0) has event_id's, further ones lie 2^40 apart.
CREATE MACRO part_id(row_id, tag, nth) AS CAST(row_id AS BIGINT) * 16 + tag + CAST(nth AS BIGINT) * 1099511627776;

-- The first 60 bits of a text's MD5, for what has no row_id.
CREATE MACRO hash_id(words) AS CAST('0x' || SUBSTRING(MD5(words), 1, 15) AS BIGINT);
CREATE MACRO hash_id_spark(words) AS CAST(CONV(SUBSTRING(MD5(words), 1, 15), 16, 10) AS BIGINT);
CREATE MACRO hash_id_athena(words) AS FROM_BASE(SUBSTRING(MD5(TO_UTF8(words)), 1, 15), 16);

-- Midnights between two days.
CREATE MACRO days_between(earlier, later) AS DATE_DIFF('day', CAST(earlier AS DATE), CAST(later AS DATE));

-- Hours, minutes and seconds, of 24 hours.
CREATE MACRO clock_time(moment) AS STRFTIME(moment, '%H:%M:%S');

-- The number that a text is, or null where it is none: exponents, infinities and other words that some engines take for
-- numbers are none, and commas stand only between thousands.
CREATE MACRO number_of(words) AS CASE
    WHEN REGEXP_MATCHES(TRIM(words), '^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+|[0-9]{1,3}(,[0-9]{3})+([.][0-9]*)?)$')
        THEN TRY_CAST(REPLACE(TRIM(words), ',', '') AS DOUBLE)
END;

-- A number as text, always with four decimals: engines write floating point numbers differently.
CREATE MACRO decimal_text(number) AS CAST(TRY_CAST(number AS DECIMAL(18, 4)) AS VARCHAR);

-- The digits of an NDC: without hyphens (5-4-2, 4-4-2, 5-3-2, 5-4-1) and decimals; null where it is 0 or rounded.
CREATE MACRO ndc_of(words) AS CASE
    WHEN number_of(words) = 0 THEN NULL
    WHEN words LIKE '____-____-__' OR words LIKE '_____-____-__' THEN CAST(REPLACE(words, '-', '') AS VARCHAR)
    WHEN words LIKE '_____-___-__' THEN SUBSTRING(words, 1, 5) || '0' || REPLACE(SUBSTRING(words, 7), '-', '')
    WHEN words LIKE '_____-____-_' THEN REPLACE(SUBSTRING(words, 1, 10), '-', '') || '0' || SUBSTRING(words, 12)
    WHEN words LIKE '%.%'
        THEN SUBSTRING(decimal_text(number_of(words)), 1, LENGTH(decimal_text(number_of(words))) - 5)
    WHEN number_of(words) > 0 THEN CAST(REPLACE(words, ',', '') AS VARCHAR)
END;

-- A code of ICD-9 or CPT as MIMIC writes it: without a dot (401.9), and without what made it a number (4019.0).
CREATE MACRO code_of(words) AS CASE
    WHEN words LIKE '____%.0' THEN SUBSTRING(words, 1, LENGTH(words) - 2)
    ELSE CAST(REPLACE(words, '.', '') AS VARCHAR)
END;

-- The number of a result that is only bounded: '<0.1', '>= 60', 'LESS THAN 5', 'GREATER THAN 300'.
CREATE MACRO bound_of(words) AS CASE
    WHEN UPPER(words) LIKE 'LESS THAN %' THEN number_of(SUBSTRING(words, 11))
    WHEN UPPER(words) LIKE 'GREATER THAN %' THEN number_of(SUBSTRING(words, 14))
    WHEN words LIKE '<%' OR words LIKE '>%' OR words LIKE '=%'
        THEN number_of(REPLACE(REPLACE(REPLACE(words, '<', ''), '>', ''), '=', ''))
END;

-- The concept of the sign or words that such a result begins with, or null.
CREATE MACRO operator_of(words) AS CASE
    WHEN words LIKE '<=%' THEN concept('Less than or equal')
    WHEN words LIKE '>=%' OR words LIKE '=>%' THEN concept('Greater than or equal')
    WHEN words LIKE '<%' OR UPPER(words) LIKE 'LESS THAN %' THEN concept('Less than')
    WHEN words LIKE '>%' OR UPPER(words) LIKE 'GREATER THAN %' THEN concept('Greater than')
    WHEN words LIKE '=%' THEN concept('Equal')
END;
