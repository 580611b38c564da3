CREATE TABLE public.config (
    name character varying(64) NOT NULL COLLATE pg_catalog."C",
    number bigint,
    value bytea
);
CREATE TABLE public.data (
    id bigint NOT NULL,
    value bytea NOT NULL
);
ALTER TABLE ONLY public.data ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE TABLE public.decisions (
    session bigint NOT NULL,
    counter bigint NOT NULL,
    attempt bigint NOT NULL,
    tid bigint NOT NULL,
    parts bytea NOT NULL
);
CREATE TABLE public.obj (
    partition bigint NOT NULL,
    oid bigint NOT NULL,
    tid bigint NOT NULL,
    data_id bigint,
    compression bigint NOT NULL,
    checksum bytea NOT NULL,
    size bigint NOT NULL,
    copied_from bigint NOT NULL
);
CREATE TABLE public.pack (
    partition bigint NOT NULL,
    tid bigint NOT NULL,
    next_oid bigint
);
CREATE TABLE public.tombstones (
    session bigint NOT NULL,
    counter bigint NOT NULL,
    attempt bigint NOT NULL
);
CREATE TABLE public.trans (
    partition bigint NOT NULL,
    tid bigint NOT NULL,
    session bigint NOT NULL,
    counter bigint NOT NULL,
    "user" bytea NOT NULL,
    description bytea NOT NULL,
    extension bytea NOT NULL,
    parts bytea NOT NULL
);
INSERT INTO public.config VALUES ('format', 1, NULL);
INSERT INTO public.config VALUES ('minimum_reader', 1, NULL);
INSERT INTO public.config VALUES ('owner', NULL, '\xfb7f31650f8d7f8587292c1097ec5d7f');
INSERT INTO public.config VALUES ('node', 16777217, NULL);
INSERT INTO public.config VALUES ('cluster_id', NULL, '\x30313233343536373839616263646566');
INSERT INTO public.config VALUES ('epoch', 50331649, NULL);
INSERT INTO public.config VALUES ('table', NULL, '\x00818080180901030281808008000402020a0a0002010a');
INSERT INTO public.config VALUES ('ceiling_tid', 25769803776, NULL);
INSERT INTO public.config VALUES ('ceiling_oid', 1099511627776, NULL);
INSERT INTO public.config VALUES ('pack_order', 6, NULL);
INSERT INTO public.config VALUES ('pack_tid', 8589934592, NULL);
INSERT INTO public.config VALUES ('doomed', NULL, '\x00000002');
INSERT INTO public.config VALUES ('position', 1234, NULL);
INSERT INTO public.config VALUES ('last_tid', 17179869184, NULL);
INSERT INTO public.config VALUES ('last_oid', 1099511627776, NULL);
INSERT INTO public.data VALUES (1, '\x726f6f74');
INSERT INTO public.data VALUES (3, '\x');
INSERT INTO public.data VALUES (4, '\x696e2074686520646f6f6d65642063656c6c');
INSERT INTO public.data VALUES (5, '\x6e6577');
INSERT INTO public.data VALUES (6, '\x789c4b5428c84ccece49d551c8cd2f4a55c82f52c8492d2e56481c151e7ac20001dd9ec1');
INSERT INTO public.data VALUES (7, '\x00ff275c0a');
INSERT INTO public.data VALUES (8, decode(repeat('a5', 1048576), 'hex'));
INSERT INTO public.data VALUES (9, '\xa5a5a5');
INSERT INTO public.data VALUES (10, '\x28b52ffd60cc00f50000b861207069636b6c652c206d6f7265206f72206c65737320010065559d4d');
INSERT INTO public.data VALUES (11, '\x6f6c64');
INSERT INTO public.decisions VALUES (4294967297, 3, 1, 12884901888, '\x0000000000000001');
INSERT INTO public.decisions VALUES (4294967297, 4, 1, 17179869184, '\x0000000000000001');
INSERT INTO public.decisions VALUES (4294967297, 5, 2, 21474836480, '\x00000001');
INSERT INTO public.obj VALUES (0, 0, 4294967296, 1, 0, '\x00000000000000000000000000000004', 4, 0);
INSERT INTO public.obj VALUES (1, 1, 4294967296, 3, 0, '\x00000000000000000000000000000000', 0, 0);
INSERT INTO public.obj VALUES (2, 2, 4294967296, 4, 0, '\x00000000000000000000000000000012', 18, 0);
INSERT INTO public.obj VALUES (0, 3, 8589934592, 5, 0, '\x00000000000000000000000000000003', 3, 0);
INSERT INTO public.obj VALUES (0, 6, 8589934592, 6, 1, '\x3b9742352558e74cc7eaedf108662d32', 36, 0);
INSERT INTO public.obj VALUES (1, 4, 8589934592, 7, 0, '\x00000000000000000000000000000005', 5, 0);
INSERT INTO public.obj VALUES (0, 9, 12884901888, 8, 0, '\x11111111111111111111111111111111', 1048579, 0);
INSERT INTO public.obj VALUES (1, 1099511627776, 12884901888, 10, 2, '\x13d6509f05caeeceb4855f8782bad724', 40, 0);
INSERT INTO public.obj VALUES (0, 3, 17179869184, 11, 0, '\x00000000000000000000000000000003', 3, 4294967296);
INSERT INTO public.obj VALUES (1, 4, 17179869184, NULL, 15, '\x00000000000000000000000000000000', 0, 0);
INSERT INTO public.pack VALUES (0, 8589934592, NULL);
INSERT INTO public.pack VALUES (1, 8589934592, 4);
INSERT INTO public.tombstones VALUES (4294967297, 8, 4);
INSERT INTO public.trans VALUES (0, 4294967296, 4294967297, 1, '\x757365722031', '\x636166c3a9', '\x8000276578745c', '\x000000000000000100000002');
INSERT INTO public.trans VALUES (1, 4294967296, 4294967297, 1, '\x757365722031', '\x636166c3a9', '\x8000276578745c', '\x000000000000000100000002');
INSERT INTO public.trans VALUES (2, 4294967296, 4294967297, 1, '\x757365722031', '\x636166c3a9', '\x8000276578745c', '\x000000000000000100000002');
INSERT INTO public.trans VALUES (0, 8589934592, 4294967297, 2, '\x757365722032', '\x636166c3a9', '\x8000276578745c', '\x0000000000000001');
INSERT INTO public.trans VALUES (1, 8589934592, 4294967297, 2, '\x757365722032', '\x636166c3a9', '\x8000276578745c', '\x0000000000000001');
INSERT INTO public.trans VALUES (0, 12884901888, 4294967297, 3, '\x757365722033', '\x636166c3a9', '\x8000276578745c', '\x0000000000000001');
INSERT INTO public.trans VALUES (1, 12884901888, 4294967297, 3, '\x757365722033', '\x636166c3a9', '\x8000276578745c', '\x0000000000000001');
INSERT INTO public.trans VALUES (0, 17179869184, 4294967297, 4, '\x757365722034', '\x636166c3a9', '\x8000276578745c', '\x0000000000000001');
INSERT INTO public.trans VALUES (1, 17179869184, 4294967297, 4, '\x757365722034', '\x636166c3a9', '\x8000276578745c', '\x0000000000000001');
ALTER TABLE ONLY public.config
    ADD CONSTRAINT config_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.data
    ADD CONSTRAINT data_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.decisions
    ADD CONSTRAINT decisions_pkey PRIMARY KEY (session, counter);
ALTER TABLE ONLY public.obj
    ADD CONSTRAINT obj_pkey PRIMARY KEY (partition, oid, tid);
ALTER TABLE ONLY public.pack
    ADD CONSTRAINT pack_pkey PRIMARY KEY (partition);
ALTER TABLE ONLY public.tombstones
    ADD CONSTRAINT tombstones_pkey PRIMARY KEY (session, counter);
ALTER TABLE ONLY public.trans
    ADD CONSTRAINT trans_pkey PRIMARY KEY (partition, tid);
CREATE INDEX obj_tid ON public.obj USING btree (partition, tid, oid);
CREATE INDEX trans_tid ON public.trans USING btree (tid, partition);
