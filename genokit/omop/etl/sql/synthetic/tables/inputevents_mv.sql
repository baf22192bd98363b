select row_id, subject_id, hadm_id, icustay_id, minutes(intime, at_min) as starttime,
    minutes(intime, at_min + lasts_min) as endtime, itemid, amount, unit as amountuom,
    case when lasts_min > 1 then round(amount * 60 / lasts_min, 4) end as rate,
    case when lasts_min > 1 then unit || '/hour' end as rateuom, minutes(intime, at_min + (a & 63)::int) as storetime,
    carer(a >> 40) as cgid, (2000 + row_id)::int as orderid, (2000 + row_id // 4 * 4)::int as linkorderid,
    case category when 'Medications' then if(lasts_min > 1, '01-Drips', '05-Med Bolus')
        when 'Blood Products/Colloids' then '07-Blood Products' else '02-Fluids (Crystalloids)' end as ordercategoryname,
    case when category = 'Medications' and lasts_min > 1 then '02-Fluids (Crystalloids)' end as secondaryordercategoryname,
    if(category = 'Medications', 'Main order parameter', 'Mixed solution') as ordercomponenttypedescription,
    if(lasts_min > 1, 'Continuous Med', 'Drug Push') as ordercategorydescription,
    round(55 + 50 * share(chance('weight', person_no)), 1) as patientweight,
    round(greatest(amount, 100), 0) as totalamount, if(category = 'Medications', 'mL', unit) as totalamountuom,
    ((b >> 12) % 100 = 0)::smallint as isopenbag, ((b >> 16) % 90 = 0)::smallint as continueinnextdept,
    if(cancelled, 1 + b % 2, 0)::smallint as cancelreason,
    case when cancelled then 'Rewritten' else pick(['FinishedRunning', 'FinishedRunning', 'Changed', 'Stopped', 'Paused'], b >> 24)
        end as statusdescription,
    null::varchar as comments_editedby, case when cancelled then 'RN' end as comments_canceledby,
    case when cancelled then minutes(intime, at_min + 30) end as comments_date,
    amount as originalamount, case when lasts_min > 1 then round(amount * 60 / lasts_min, 4) end as originalrate
from (
    select each.*, itemid, unit, category, (long_min * i // n)::bigint as at_min, (b >> 20) % 33 = 0 as cancelled,
        if((b >> 8) % 3 = 0, 1, 15 + a % 600)::bigint as lasts_min, round(abs(mean + sd * bell(a)) + 0.0001, 4) as amount
    from each join place on list = 'inputevents_mv' and place = (b >> 50)::int % 1024
)
