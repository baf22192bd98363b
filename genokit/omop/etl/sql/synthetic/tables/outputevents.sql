select row_id, subject_id, hadm_id, icustay_id, minutes(intime, at_min) as charttime, itemid,
    case when (b >> 8) % 60 > 0 then round(abs(mean + sd * bell(a)) / 5) * 5 end as value,
    case when (b >> 8) % 60 > 0 then unit end as valueuom, minutes(intime, at_min + (a & 63)::int) as storetime,
    carer(a >> 40) as cgid, null::varchar as stopped, null::varchar as newbottle,
    case when itemid < 220000 and (b >> 20) % 2000 = 0 then 1 end::int as iserror
from (
    select each.*, itemid, unit, mean, sd, (long_min * i // n // 60 * 60)::bigint as at_min
    from each join place
        on list = 'outputevents' and place = (b >> 50)::int % 1024 and place.era = if(dbsource = 'both', i & 1, each.era)
)
