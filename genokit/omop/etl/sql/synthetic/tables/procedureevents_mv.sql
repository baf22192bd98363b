select row_id, subject_id, hadm_id, case when b % 40 > 0 then icustay_id end as icustay_id, minutes(intime, at_min) as starttime,
    minutes(intime, at_min + if(sd > 0, amount * if(unit = 'hour', 60, 1), 1)::bigint) as endtime, itemid, amount as value,
    unit as valueuom,
    case when category like 'Access%' then pick(['RU Arm', 'LL Arm', 'Right IJ', 'Left Subclavian'], b >> 8) end as location,
    case when category like 'Access%' then if(category like '%Invasive', 'Invasive Venous', 'Peripheral') end as locationcategory,
    minutes(intime, at_min + (a & 63)::int) as storetime, carer(a >> 40) as cgid, (3000 + row_id)::int as orderid,
    (3000 + row_id)::int as linkorderid, category as ordercategoryname, null::varchar as secondaryordercategoryname,
    if(sd > 0, 'ContinuousProcess', 'Task') as ordercategorydescription, ((b >> 12) % 60 = 0)::smallint as isopenbag,
    ((b >> 16) % 30 = 0)::smallint as continueinnextdept, if(cancelled, 1, 0)::smallint as cancelreason,
    case when cancelled then 'Rewritten' else pick(['FinishedRunning', 'FinishedRunning', 'Stopped'], b >> 24) end
        as statusdescription,
    null::varchar as comments_editedby, case when cancelled then 'RN' end as comments_canceledby,
    case when cancelled then minutes(intime, at_min + 30) end as comments_date
from (
    select each.*, itemid, unit, category, sd, (long_min * i // n)::bigint as at_min, (b >> 20) % 50 = 0 as cancelled,
        round(abs(mean + sd * bell(a))) as amount
    from each join place on list = 'procedureevents_mv' and place = (b >> 50)::int % 1024
)
