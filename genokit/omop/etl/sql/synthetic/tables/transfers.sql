with visit as (
    select subject_id, hadm_id, dbsource, icustay_id, first_careunit as unit, first_wardid as ward, j * 2 as step, intime, outtime
    from stay
    union all
    select subject_id, hadm_id, dbsource, null, null, (7 + chance('after', no) % 51)::smallint, j * 2 + 1, outtime,
        greatest(outtime, coalesce(lead(intime) over (partition by hadm_id order by j), dischtime))
    from stay
    union all
    select subject_id, hadm_id, dbsource, null, null, (7 + chance('first', no) % 51)::smallint, -1, admittime, intime
    from stay where j = 0 and intime > admittime
    union all
    select subject_id, hadm_id, if(era < 0.612, 'carevue', 'metavision'), null, null, (7 + chance('only', no) % 51)::smallint, -1,
        admittime, greatest(dischtime, admittime)
    from admission a where not exists (from stay s where s.hadm_id = a.hadm_id)
    union all
    select subject_id, hadm_id, if(era < 0.612, 'carevue', 'metavision'), null, null, null, 99, dischtime, null
    from admission
)
select row_number() over (order by hadm_id, step)::int as row_id, subject_id, hadm_id, icustay_id, dbsource,
    case when step = 99 then 'discharge' when row_number() over walk = 1 then 'admit' else 'transfer' end as eventtype,
    lag(unit) over walk as prev_careunit, unit as curr_careunit, lag(ward) over walk as prev_wardid, ward as curr_wardid,
    intime, outtime, round(date_diff('second', intime, outtime) / 3600.0, 2) as los
from visit window walk as (partition by hadm_id order by step)
order by row_id
