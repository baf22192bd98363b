select row_id, subject_id, hadm_id, case when b % 500 > 0 then icustay_id end as icustay_id, itemid,
    minutes(intime, at_min) as charttime, minutes(intime, at_min + (a & 63)::int) as storetime, carer(a >> 40) as cgid,
    -- A line may be older than the stay, but no older than a newborn.
    case when (b >> 12) % 50 > 0
        then midnight(greatest(minutes(intime, at_min - (a % 4000)::int), if(first_careunit = 'NICU', admittime, timestamp '2000-01-01')))
        end as value, unit as valueuom,
    ((b >> 20) % 300 = 0)::smallint as warning, ((b >> 28) % 900 = 0)::smallint as error, null::varchar as resultstatus,
    null::varchar as stopped
from (
    select each.*, itemid, unit, (long_min * i // n)::bigint as at_min
    from each join place on list = 'datetimeevents' and place = (b >> 50)::int % 1024
)
