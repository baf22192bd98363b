select row_id, subject_id, hadm_id, case when i % 2 = 0 then if(era < 0.612, 'HCFA', 'MS') else 'APR ' end as drg_type,
    d.code as drg_code, d.words as description, case when i % 2 = 1 then 1 + a % 4 end::smallint as drg_severity,
    case when i % 2 = 1 then 1 + b % 4 end::smallint as drg_mortality
from each join (values
    (0, '416', 'SEPTICEMIA AGE >17'), (1, '127', 'HEART FAILURE & SHOCK'),
    (2, '871', 'SEPTICEMIA W/O MV 96+ HOURS W MCC'), (3, '107', 'CORONARY BYPASS W CARDIAC CATH'),
    (4, '391', 'NORMAL NEWBORN'), (5, '853', 'INFECTIOUS & PARASITIC DISEASES W O.R. PROCEDURE W MCC'),
    (6, '89', 'SIMPLE PNEUMONIA & PLEURISY AGE >17 W CC'), (7, '720', 'Septicemia & Disseminated Infections')
) d (no, code, words) on d.no = (b >> 40) % 8
