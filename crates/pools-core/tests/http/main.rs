//! Behaviours of the HTTP pool against real servers. The numbers are those of its list of behaviours; each test looks at the
//! result, at the connections that the server counted, and at the stats afterwards.

mod reuse;
mod support;
