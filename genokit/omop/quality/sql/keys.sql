-- Rows whose key another row has too.
SELECT COALESCE(CAST(SUM(twice.n) AS BIGINT), 0) AS isPrimaryKey
FROM (
    SELECT field, COUNT(*) AS n FROM cdm.checked WHERE field IS NOT NULL GROUP BY field HAVING COUNT(*) > 1
) AS twice
