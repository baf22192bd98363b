select row_id, subject_id, hadm_id, case when b % 1000 > 1 then icustay_id end as icustay_id, itemid,
    minutes(intime, at_min) as charttime, minutes(intime, at_min + (a & 31)::int) as storetime, carer(a >> 40) as cgid,
    case when texts is not null then pick(texts, a >> 8)
        when number is null then pick(['ERROR', '>60', '<20', 'UNABLE'], a >> 8)
        when decimals = 0 then number::int::varchar else number::varchar end as value,
    number as valuenum, unit as valueuom,
    case when itemid >= 220000 then (b >> 20) % 50 = 0 end::int as warning,
    case when itemid >= 220000 then (b >> 30) % 400 = 0 end::int as error,
    case when itemid < 220000 and (b >> 40) % 300 = 0 then 'Final' end as resultstatus,
    case when itemid < 220000 then if((b >> 34) % 200 = 0, 'D/C''d', 'NotStopd') end as stopped
from (
    select each.*, itemid, texts, decimals, unit, (i * long_min / n)::bigint as at_min,
        case when texts is null and (b >> 10) % 250 > 0 then round(least(if(mean > 0, abs(mean + sd * bell(a)),
            mean + sd * bell(a)), cap), decimals) end as number
    from each join place
        on list = 'chartevents' and place = (b >> 50)::int % 1024 and place.era = if(dbsource = 'both', i & 1, each.era)
)
