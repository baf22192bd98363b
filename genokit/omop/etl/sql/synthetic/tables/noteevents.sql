select row_id, subject_id, case when b % 10 > 0 then hadm_id end as hadm_id, midnight(minutes(admittime, at_min)) as chartdate,
    case when category in ('Discharge summary', 'Echo', 'ECG') then null else minutes(admittime, at_min) end as charttime,
    case when category like 'Nurs%' or category like 'Phys%' then minutes(admittime, at_min + (a & 63)::int) end as storetime,
    category, if(category = 'Radiology', pick(['CHEST (PORTABLE AP)', 'CT HEAD W/O CONTRAST', 'CHEST (PA & LAT)'], a >> 4), 'Report')
        as description,
    case when category like 'Nurs%' or category like 'Phys%' then carer(a >> 40) end as cgid,
    case when (b >> 20) % 1500 = 0 then '1' end as iserror,
    concat('[**', strftime(minutes(admittime, at_min), '%Y-%-m-%-d'), '**] ', upper(category), chr(10), chr(10),
        -- Quotes, commas and lines that look like rows: what breaks a careless reader.
        pick(['Pt states "I feel better", denies pain.', 'S: "my chest hurts", O: see flowsheet.',
            'Neuro: alert, oriented x3. CV: SR, no ectopy.', 'Admitted with SOB, fever; hx of CHF, CRI, "brittle" DM.'], a),
        chr(10), pick(['Resp: 4L nc, sats 96%, LS coarse.', 'GI: abd soft, +BS, "no BM x 2 days".',
            'Labs: 138,4.2,104,26,22,1.1' || chr(10) || '17,3,100001,"WBC 12.1",,,', 'ID: Tmax 101.2, vanco/levo, cx pending.'], a >> 8),
        chr(10), pick(['Social: wife, 2 daughters in; "very supportive".', 'Plan: wean O2, OOB to chair, ?c/o in am.',
            'A/P: 1) CHF - diurese, goal neg 1L; 2) afib - rate control.', 'Skin intact, ""turned"" q2h.'], a >> 16),
        case when category = 'Discharge summary' then chr(10) || chr(10) || 'Discharge Medications:' || chr(13) || chr(10)
            || repeat('1. Aspirin 81 mg Tablet Sig: One (1) Tablet PO DAILY (Daily).' || chr(10), 4 + (b % 24)::int) else '' end,
        repeat(chr(10) || pick(['Continue to monitor.', 'No acute change, will follow.', '[**Name (NI) 3**] aware.'], a >> 24),
            1 + ((b >> 30) % 12)::int)) as text
from (
    select each.*, greatest(stay_min, 1) * i // n as at_min,
        case when i = 0 then 'Discharge summary' else pick(['Nursing/other', 'Nursing/other', 'Nursing/other', 'Radiology',
            'Radiology', 'Nursing', 'ECG', 'Physician ', 'Echo', 'Respiratory ', 'Nutrition', 'General', 'Rehab Services',
            'Social Work', 'Case Management ', 'Pharmacy', 'Consult'], b >> 8) end as category
    from each
)
