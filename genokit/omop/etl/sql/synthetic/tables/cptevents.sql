select row_id, subject_id, hadm_id, costcenter,
    -- Respiratory care charges have a date, intensive care's have none.
    case when costcenter = 'Resp' then midnight(minutes(admittime, greatest(stay_min, 1) * i // n)) end as chartdate,
    cpt as cpt_cd, case when b % 100 > 0 then cpt::int end as cpt_number, null::varchar as cpt_suffix,
    case when costcenter = 'ICU' then i + 1 end::int as ticket_id_seq, section as sectionheader,
    subsection as subsectionheader, nullif(description, '') as description
from each join cpt_place on place = (b >> 50)::int % 1024
