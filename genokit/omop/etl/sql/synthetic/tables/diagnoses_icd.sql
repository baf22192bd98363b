select row_id, subject_id, hadm_id, case when b % 5000 > 0 then i + 1 end::int as seq_num,
    -- Some codes are in no dictionary, a few rows have none.
    case when b % 12000 = 1 then null when share(a >> 20) < 0.026
        then pick(['7196', '78906', 'E9356', '4294', '03819', '20310', '7108'], a) else code end as icd9_code
from each join code_place on kind = 'diagnosis' and place = (b >> 50)::int % 1024
