select (no + 1)::int as row_id, subject_id, gender,
    -- Of those who are over 89 at any admission the birth is shifted to 300 years before the first.
    case when newborn then midnight(first_admittime)
        when over_89 then midnight(first_admittime) - to_years(300) + to_days((chance('dob', no) % 60)::int)
        else midnight(first_admittime - to_days((age * 365.25)::int)) end as dob,
    dod,
    -- Of some deaths after the discharge the hospital hears.
    coalesce(midnight(deathtime), case when share(chance('heard', no)) < 0.4 then dod end) as dod_hosp,
    case when deathtime is null or share(chance('ssn', no)) < 0.6 then dod end as dod_ssn,
    (dod is not null)::int as expire_flag
from person join dead using (subject_id) order by row_id
