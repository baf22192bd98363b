select no::int as row_id, subject_id, hadm_id, icustay_id, dbsource, first_careunit, last_careunit, first_wardid,
    last_wardid, intime, outtime, round(date_diff('second', intime, outtime) / 86400.0, 4) as los
from stay order by row_id
