//! Members, leadership, and what clients are told of them. Follows `shard/cluster.rs`.

use holdfast_raft::{MessageBody, Role, RoleState};
use holdfast_server::cluster::{GroupView, Member, NodeId, NodeView, Topology};
use holdfast_server::host::Outputs;
use holdfast_server::peer::{JoinReply, JoinRequest, PeerMessage};
use holdfast_server::replica::{DATA_GROUP, Replica, internal};
use holdfast_server::slot::SLOT_COUNT;

use super::{Effect, Node};

/// How long after one attempt to correct this node's entry in the list of members the next is made, in milliseconds.
const MEMBER_RETRY_MS: u64 = 2000;

impl Node {
    /// Does what the host wants done: messages, confirmed reads, roles, snapshots.
    pub(super) fn carry_out(&mut self, outputs: &mut Outputs) {
        for (group, message) in outputs.messages.drain(..) {
            let (to, appends) = (message.to, matches!(message.body, MessageBody::Append { .. }));
            if self.unlinked.contains(&to) && appends {
                // For want of a link: don't let the pipeline run ahead. NB: the message goes all the same, as over a new link.
                self.host.data_mut().unreachable(to);
            }
            self.effects.push(Effect::Send { to, message: PeerMessage::Raft { group, message } });
        }
        for to in outputs.beats.drain(..) {
            self.mark("beats while asleep");
            self.effects.push(Effect::Send { to, message: PeerMessage::Beat });
        }
        let answered = !outputs.reads.is_empty() || !outputs.reads_dropped.is_empty();
        for (_, read) in outputs.reads.drain(..) {
            if let Some(asked) = self.asked.iter_mut().find(|asked| asked.context == read.context) {
                asked.index = Some(read.index);
            }
        }
        for (_, context) in outputs.reads_dropped.drain(..) {
            self.drop_read(context);
        }
        if answered {
            self.ask_again();
        }
        for (group, to, found) in outputs.state_hashes.drain(..) {
            self.effects.push(Effect::Send { to, message: PeerMessage::StateHash { group, found } });
        }
        for (_, id) in std::mem::take(&mut outputs.promises_lost) {
            // No disk of the simulation forgets what it synced.
            self.fail(&format!("node {id} is said to have lost what it acknowledged"));
        }
        for (_, role) in outputs.roles.drain(..) {
            self.role_changed(role);
        }
        for (_, need) in outputs.snapshots.drain(..) {
            self.start_sending(need);
        }
        for _ in outputs.installs.drain(..) {
            self.start_install();
        }
        self.serve_confirmed();
    }

    fn role_changed(&mut self, role: RoleState) {
        self.topology_changed = true;
        self.effects.push(Effect::Role(role));
        self.leader_last = role.leader.or(self.leader_last);
        let leads = role.role == Role::Leader;
        let led = std::mem::replace(&mut self.led, leads);
        if led && !leads {
            self.mark("leaderships lost");
            for (_, machine) in std::mem::take(&mut self.joins) {
                self.answer_join(machine, JoinReply::Retry { reason: "the leader changed".to_owned() });
            }
            self.lose_under_way();
        }
        if !leads {
            self.release_readers();
        }
        if leads && !led {
            self.correct_own_entry();
        }
    }

    // ---- members ---------------------------------------------------------------------------------------------------

    pub(super) fn join(&mut self, machine: u32, request: &JoinRequest) {
        let retry = |text: &str| JoinReply::Retry { reason: text.to_owned() };
        let member = Member { folder: request.folder, client: request.client.clone(), peer: request.peer.clone() };
        let replica = self.host.data();
        let known = replica.members().by_folder(member.folder).and_then(|id| replica.member(id)) == Some(&member);
        let leader = replica.raft().role_state().leader;
        if !replica.raft().is_leader() {
            let address = leader.and_then(|id| replica.member(id)).map(|member| member.peer.clone());
            let reply = address.map_or_else(|| retry("no leader is known"), |leader| JoinReply::Redirect { leader });
            return self.answer_join(machine, reply);
        }
        if replica.member(self.id).is_none() {
            return self.answer_join(machine, retry("the list of members is not ready"));
        }
        self.joins.push((member.folder, machine));
        if known {
            self.answer_joins();
        } else {
            self.propose_member(0, &member);
        }
    }

    fn answer_join(&mut self, machine: u32, reply: JoinReply) {
        self.effects.push(Effect::Joined { machine, reply });
    }

    /// The operator wants a node gone.
    pub(in crate::world) fn forget(&mut self, id: NodeId) {
        let args = Replica::forget_args(id);
        self.push_internal(internal::FORGET, &[b"", &args[0]]);
        self.pump();
    }

    /// The operator wants a node to lead.
    pub(in crate::world) fn hand_over_to(&mut self, target: NodeId) {
        if self.host.data_mut().transfer_leader(target) {
            self.mark("leaderships handed over");
        }
        self.pump();
    }

    fn propose_member(&mut self, id: NodeId, member: &Member) {
        let args = Replica::member_args(id, member);
        let args: Vec<&[u8]> = [&b""[..]].into_iter().chain(args.iter().map(Vec::as_slice)).collect();
        self.push_internal(internal::MEMBER, &args);
    }

    pub(super) fn answer_joins(&mut self) {
        for (folder, machine) in std::mem::take(&mut self.joins) {
            let members = self.host.data().members();
            match members.by_folder(folder) {
                Some(node) => {
                    let peers = members.nodes.iter().map(|(id, member)| (*id, member.peer.clone())).collect();
                    self.answer_join(machine, JoinReply::Welcome { cluster: self.cluster, node, peers });
                }
                None => self.joins.push((folder, machine)),
            }
        }
    }

    /// Sees to it that the list of members says of this node what is true.
    fn correct_own_entry(&mut self) {
        let asked_lately =
            self.member_asked_ms.is_some_and(|asked| self.mono_ms.saturating_sub(asked) < MEMBER_RETRY_MS);
        let replica = self.host.data();
        if replica.member(self.id) == Some(&self.me) || asked_lately || !replica.raft().is_leader() {
            return;
        }
        self.member_asked_ms = Some(self.mono_ms);
        let me = self.me.clone();
        self.propose_member(self.id, &me);
    }

    // ---- upkeep ----------------------------------------------------------------------------------------------------

    pub(super) fn keep_cluster(&mut self) {
        self.correct_own_entry();
        self.watch_transfers();
        self.check_state();
        self.topology_changed = true;
        if self.random.chance(self.settings.hand_over_per_mille) {
            self.hand_over();
        }
    }

    /// Hashes what a check asks for. NB: nothing in the simulation makes states differ.
    fn check_state(&mut self) {
        if let Some(job) = self.host.take_hash_job() {
            let (group, index) = (job.group(), job.index());
            self.host.finish_hash(group, index, job.run(|_| {}));
            self.mark("states hashed");
        }
        if self.host.data().differs() {
            self.fail("its state differs from the majority's");
        }
    }

    /// Hands leadership to the voter that is furthest.
    fn hand_over(&mut self) {
        let raft = self.host.data().raft();
        if !raft.is_leader() {
            return;
        }
        let voters = &raft.conf_state().voters;
        let peers = raft.status().peers;
        let target = peers.iter().filter(|peer| voters.contains(&peer.id)).max_by_key(|peer| peer.matched);
        if let Some(target) = target.map(|peer| peer.id)
            && self.host.data_mut().transfer_leader(target)
        {
            self.mark("leaderships handed over");
        }
    }

    /// Tells clients what is known of the cluster.
    pub(super) fn publish_topology(&mut self) {
        self.topology_changed = false;
        let replica = self.host.data();
        let status = replica.raft().status();
        let conf = replica.raft().conf_state();
        let view = |(id, member): (&NodeId, &Member)| NodeView {
            id: *id,
            client: member.client.clone(),
            peer: member.peer.clone(),
            connected: !self.unlinked.contains(id),
        };
        let group = GroupView {
            id: DATA_GROUP,
            term: status.role.term,
            leader: status.role.leader,
            leader_last: self.leader_last,
            voters: conf.voters.clone(),
            learners: conf.learners.clone(),
            slots: vec![(0, SLOT_COUNT - 1)],
            commit: status.commit,
            applied: replica.applied().index,
            matched: status.peers.iter().map(|peer| (peer.id, peer.matched)).collect(),
        };
        let nodes = replica.members().nodes.iter().map(view).collect();
        self.topology = Topology { cluster: self.cluster, me: self.id, nodes, groups: vec![group] };
    }
}
