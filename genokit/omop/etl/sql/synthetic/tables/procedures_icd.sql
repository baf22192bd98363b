select row_id, subject_id, hadm_id, (i + 1)::int as seq_num,
    case when share(a >> 20) < 0.008 then pick(['3606', '9920', '0115'], a) else code end as icd9_code
from each join code_place on kind = 'procedure' and place = (b >> 50)::int % 1024
