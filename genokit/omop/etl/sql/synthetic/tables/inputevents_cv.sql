select row_id, subject_id, hadm_id, case when b % 100 > 0 then icustay_id end as icustay_id,
    minutes(intime, at_min) as charttime, itemid, case when not drip and not still then round(abs(mean + sd * bell(a)), decimals) end as amount,
    case when drip and (b >> 12) % 5 > 0 then null when drip then null else 'ml' end as amountuom,
    case when drip and not still then round(abs(mean + sd * bell(a)), decimals) end as rate, case when drip then unit end as rateuom,
    minutes(intime, at_min + (a & 31)::int) as storetime, carer(a >> 40) as cgid,
    (1000 + row_id // 3)::int as orderid, (1000 + row_id // 9)::int as linkorderid,
    case when drip and (b >> 16) % 30 = 0 then pick(['Stopped', 'D/C''d', 'Restart'], b >> 30) end as stopped,
    case when (b >> 20) % 40 = 0 then 1 end::int as newbottle,
    case when not drip and (b >> 24) % 4 = 0 then round(abs(mean) * 4, 0) end as originalamount,
    case when not drip then 'ml' end as originalamountuom,
    case when itemid in (30056, 30058) then pick(['Oral', 'Nasogastric'], b >> 28)
        else pick(['Intravenous', 'Intravenous', 'IV Drip', 'Drip', 'Intravenous Push'], b >> 28) end as originalroute,
    case when not drip then round(abs(mean + sd * bell(b)), 0) end as originalrate,
    case when not drip then 'ml/hr' end as originalrateuom, null::varchar as originalsite
from (
    select each.*, itemid, unit, mean, sd, decimals, category = 'IV Drips' as drip,
        -- One row in thirteen says neither how much nor how fast.
        (b >> 36) % 13 = 0 as still, (long_min * i // n // 30 * 30)::bigint as at_min
    from each join place on list = 'inputevents_cv' and place = (b >> 50)::int % 1024
)
