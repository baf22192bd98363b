select row_id, subject_id, case when not outside then hadm_id end as hadm_id, itemid,
    -- What is without an admission was taken as an outpatient, before it or after it: after birth, and before a death.
    minutes(admittime, case when outside and newborn then (b % 100000)::bigint
        when outside then (b % if(died, 400000, 500000))::bigint - 400000 - i
        else abs(stay_min) * i // n // 360 * 360 + (b % 240)::bigint end) as charttime,
    case when texts is not null then pick(texts, a >> 8)
        when number is null then pick(['<0.1', '>300', '<1.0', 'GREATER THAN 50', 'ERROR', 'HOLD', '___', 'UNABLE TO REPORT'], a)
        when decimals = 0 then number::int::varchar else number::varchar end as value,
    case when texts is null then number else try_cast(pick(texts, a >> 8) as double) end as valuenum,
    unit as valueuom,
    case when number < low or number > high then 'abnormal' when texts is not null and pick(texts, a >> 8) not in ('NEG', 'NORMAL',
        'Clear', 'Yellow', 'ART') and (b >> 4) % 3 = 0 then 'abnormal' when (b >> 8) % 500 = 0 then 'delta' end as flag
from (
    select each.*, itemid, texts, decimals, unit, low, high, share(chance('outside', row_id // 18)) < 0.19 as outside,
        case when texts is null and (b >> 12) % 1000 > 17
            then round(least(if(mean > 0, abs(mean + sd * bell(a)), mean + sd * bell(a)), cap), decimals) end as number
    from each join place on list = 'labevents' and place = (b >> 50)::int % 1024
)
