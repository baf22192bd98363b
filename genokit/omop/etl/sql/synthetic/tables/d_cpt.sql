select row_number() over (order by low)::int as row_id, category::smallint as category, sectionrange, sectionheader,
    printf('%05d-%05d', low, high) as subsectionrange, subsectionheader, null::varchar as codesuffix,
    low::int as mincodeinsubsection, high::int as maxcodeinsubsection
from (values
    (1, '99201-99499', 'Evaluation and management', 99221, 99239, 'Hospital inpatient services'),
    (1, '99201-99499', 'Evaluation and management', 99241, 99255, 'Consultations'),
    (1, '99201-99499', 'Evaluation and management', 99291, 99292, 'Critical care services'),
    (3, '10021-69990', 'Surgery', 30000, 32999, 'Respiratory system'),
    (3, '10021-69990', 'Surgery', 33010, 37799, 'Cardiovascular system'),
    (3, '10021-69990', 'Surgery', 61000, 64999, 'Nervous system'),
    (4, '70010-79999', 'Radiology', 76506, 76999, 'Diagnostic ultrasound'),
    (6, '90281-99607', 'Medicine', 90935, 90999, 'Dialysis'),
    (6, '90281-99607', 'Medicine', 94002, 94799, 'Pulmonary')
) t (category, sectionrange, sectionheader, low, high, subsectionheader)
order by row_id
