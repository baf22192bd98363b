select row_id, subject_id, hadm_id, first_wardid::int as submit_wardid, first_careunit as submit_careunit,
    last_wardid::int as curr_wardid, last_careunit as curr_careunit, (1 + a % 2)::int as callout_wardid,
    pick(['MED', 'CCU', 'CSURG', 'NSURG', 'TRAUM', 'NMED'], a >> 8) as callout_service,
    (b % 3 = 0)::smallint as request_tele, ((b >> 4) % 20 = 0)::smallint as request_resp,
    ((b >> 8) % 12 = 0)::smallint as request_cdiff, ((b >> 12) % 10 = 0)::smallint as request_mrsa,
    ((b >> 16) % 30 = 0)::smallint as request_vre, 'Inactive' as callout_status,
    if((b >> 20) % 6 = 0, 'Cancelled', 'Discharged') as callout_outcome,
    case when (b >> 20) % 6 > 0 then 7 + (b >> 24) % 51 end::int as discharge_wardid,
    pick(['Acknowledged', 'Acknowledged', 'Revised', 'Unacknowledged'], b >> 28) as acknowledge_status,
    minutes(outtime, -600) as createtime, minutes(outtime, -500) as updatetime,
    case when (b >> 32) % 8 > 0 then minutes(outtime, -480) end as acknowledgetime, outtime as outcometime,
    null::timestamp as firstreservationtime, null::timestamp as currentreservationtime
from each
